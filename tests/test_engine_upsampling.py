"""Transposed convolutions that become one kernel with the convolution of their results: where, and what it gives."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from harness import relative_error, thread_count
from torch import Tensor, nn

from fastnets.engine import Optimized, optimize
from fastnets.engine.kernels_conv import Transposed

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIZE = {2: (40, 52), 3: (12, 10, 14)}


class Decoder(nn.Module):
    """A level of a U-Net's decoder; `joins` puts the results of the transposed convolution among the encoder's."""

    def __init__(
        self,
        axes: int,
        joins: Callable[[Tensor, Tensor], list[Tensor]],
        *,
        others: int = 24,
        cout: int = 48,
        bias: bool = True,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.joins = joins
        self.up = TRANSPOSED[axes](64, 32, 2, 2, bias=bias)
        self.conv = CONV[axes](32 + others, cout, 3, padding=1, bias=bias)
        self.norm = NORM[axes](cout)
        for values in (self.norm.weight, self.norm.running_var):
            nn.init.uniform_(values, 0.5, 2)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined = self.joins(self.up(x), skip)
        return self.norm(self.conv(torch.cat(joined, 1) if len(joined) > 1 else joined[0])).relu()


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it costs: these values are small."""
    monkeypatch.setattr("fastnets.engine.upsampling._pays", lambda *arguments: True)


def inputs(axes: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    size = SIZE[axes]
    return (
        torch.randn(batch, 64, *size, generator=random),
        torch.randn(batch, 24, *(2 * n for n in size), generator=random),
    )


def upsampling(optimized: Optimized, *values: Tensor) -> list[tuple[int, ...]]:
    """The kernels of the transposed convolutions that run."""
    kernels = [node.kernel for node in optimized.plan_for(*values).graph.nodes]
    return [tuple(kernel.weight.shape[2:]) for kernel in kernels if isinstance(kernel, Transposed)]


JOINS = {
    "after": lambda up, skip: [skip, up],
    "before": lambda up, skip: [up, skip],
    "between": lambda up, skip: [skip[:, :5].relu(), up, skip[:, 5:].sigmoid()],
    "alone": lambda up, skip: [up],
    "beside nothing": lambda up, skip: [skip[:, :0], up],
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("axes", [2, 3])
@torch.no_grad()
@pytest.mark.usefixtures("always")
def test_one_kernel(axes: int, join: str, bias: bool, dtype: str) -> None:
    """Also where the bias of the transposed convolution does not reach: in the padding of the other."""
    model = Decoder(axes, JOINS[join], others=24 if join in ("after", "before", "between") else 0, bias=bias).eval()
    values = inputs(axes)
    expected = copy.deepcopy(model).double()(*(value.double() for value in values))
    for threads in (1, 2):
        with thread_count(threads):
            optimized = optimize(model, values, dtype=dtype)
            assert upsampling(optimized, *values) == [(4,) * axes]
            actual = optimized(*values)
        assert relative_error(actual, expected) <= (1e-5 if dtype == "fp32" else 1e-2)
        border = (actual - expected)[(..., 0)], expected[(..., 0)]
        assert float(border[0].norm() / border[1].norm()) <= (1e-5 if dtype == "fp32" else 1e-2)


@torch.no_grad()
@pytest.mark.usefixtures("always")
def test_weights_are_made_once_for_all_shapes_and_again_by_refresh() -> None:
    model, values = Decoder(2, JOINS["after"]).eval(), inputs(2)
    optimized = optimize(model, values)
    assert upsampling(optimized, *values) == [(4, 4)]
    first, second = (_kernels(optimized, *(v[:n] for v in values)) for n in (2, 1))
    assert all(a.weight is b.weight and a.packs is b.packs for a, b in zip(first, second, strict=True))
    model.up.weight.mul_(2)
    model.up.bias.add_(1)
    optimized.refresh()
    assert relative_error(optimized(*values), model(*values)) <= 1e-5


def _kernels(optimized: Optimized, *values: Tensor) -> list[Transposed]:
    kernels = [node.kernel for node in optimized.plan_for(*values).graph.nodes]
    return [kernel for kernel in kernels if isinstance(kernel, Transposed)]


class Nearest(Decoder):
    """Each pixel is repeated, instead."""

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = nn.functional.interpolate(x[:, :32] * 1, scale_factor=2, mode=self.mode)
        joined = self.joins(up, skip)
        return self.norm(self.conv(torch.cat(joined, 1) if len(joined) > 1 else joined[0])).relu()


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("axes", [2, 3])
@torch.no_grad()
@pytest.mark.usefixtures("always")
def test_repeated_pixels(axes: int, join: str, mode: str) -> None:
    model = Nearest(axes, JOINS[join], others=24 if join in ("after", "before", "between") else 0).eval()
    model.mode, values = mode, inputs(axes)
    expected = copy.deepcopy(model).double()(*(value.double() for value in values))
    optimized = optimize(model, values)
    assert upsampling(optimized, *values) == ([(4,) * axes] if mode == "nearest" else [])
    assert relative_error(optimized(*values), expected) <= 1e-5


@torch.no_grad()
def test_it_is_done_where_it_costs_less() -> None:
    model = Decoder(2, JOINS["after"], cout=32).eval()
    for size, kernel in ((96, 4), (2, 2)):
        values = torch.randn(1, 64, size, size), torch.randn(1, 24, 2 * size, 2 * size)
        optimized = optimize(model, values)
        assert upsampling(optimized, *values) == [(kernel, kernel)]
        assert relative_error(optimized(*values), model(*values)) <= 1e-5


class Keeps(Decoder):
    """What else reads the values between the two needs them."""

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        up = self.up(x)
        return self.conv(torch.cat([skip, up], 1)), up


class Activates(Decoder):
    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x).relu()], 1))


class ReadsTwice(Decoder):
    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([skip, self.up(x)], 1)
        return self.conv(joined) + self.conv(joined.relu())


class Strided(Decoder):
    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return nn.functional.conv2d(torch.cat([skip, self.up(x)], 1), self.conv.weight, stride=2, padding=1)


@pytest.mark.parametrize("kind", [Keeps, Activates, ReadsTwice, Strided])
@torch.no_grad()
@pytest.mark.usefixtures("always")
def test_others_stay_two_kernels(kind: type[Decoder]) -> None:
    model, values = kind(2, JOINS["after"]).eval(), inputs(2)
    optimized = optimize(model, values)
    assert upsampling(optimized, *values) == [(2, 2)]
    actual, expected = optimized(*values), model(*values)
    for a, b in zip(*(([v] if isinstance(v, Tensor) else v) for v in (actual, expected)), strict=True):
        assert relative_error(a, b) <= 1e-5


@torch.no_grad()
@pytest.mark.usefixtures("always")
def test_the_sum_takes_the_memory_of_what_is_added() -> None:
    """A convolution writes over its residual: a U-Net's level needs the encoder's values and one of its own."""
    model, values = Decoder(2, JOINS["after"]).eval(), inputs(2, 1)
    assert upsampling(optimize(model, values), *values) == [(4, 4)]

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = model, nn.Conv2d(48, 8, 1)

        def forward(self, x: Tensor, skip: Tensor) -> Tensor:
            return self.last(self.first(x, skip.relu()))

    network = Twice().eval()
    optimized = optimize(network, values)
    assert relative_error(optimized(*values), network(*values)) <= 1e-5
    pixels = 4 * SIZE[2][0] * SIZE[2][1]
    assert optimized.plan_for(*values).storage.bytes == 4 * pixels * (24 + 48)
