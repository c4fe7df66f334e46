"""Random graphs for the tests of the engine: values that are read several times, joined, sliced and returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOLS = {
    "max": {2: nn.MaxPool2d, 3: nn.MaxPool3d},
    "avg": {2: nn.AvgPool2d, 3: nn.AvgPool3d},
    "adaptive_avg": {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d},
    "adaptive_max": {2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d},
}
ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid]
ACTIVATIONS += [nn.Tanh, nn.ELU, nn.GELU, nn.LeakyReLU, nn.Softplus]
MOST = 3000  # elements of a value


REFUSED = ("more than 1 value per channel", "view size is not compatible")
"""What torch says of a norm of one value, and of local response norm of some views."""


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def extra_repr(self) -> str:
        return f"line {self.function.__code__.co_firstlineno}"

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.down, self.up = CONV[dims](channels, 2, 1), CONV[dims](2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(tuple(range(2, x.dim())), keepdim=True)
        return x * self.up(self.down(mean).relu()).sigmoid()


class Attention(nn.Module):
    """Of every pixel to every other, with a norm before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.queries = nn.LayerNorm(channels), nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        a, b = self.queries(self.norm(rows)).chunk(2, -1)
        weights = (a @ b.transpose(1, 2) / a.shape[-1]).softmax(-1)
        return x + (weights @ rows).transpose(1, 2).reshape(x.shape)


class Tokens(nn.Module):
    """Joins of rows along both of their axes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels, channels), nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        first = self.first(rows)
        wide = torch.cat([first, rows], 2)
        long = torch.cat([first, self.second(wide).relu()], 1)
        return self.first(long)[:, : rows.shape[1]].transpose(1, 2).reshape(x.shape)


class Dense(nn.Module):
    """A dense block: each layer reads all before it."""

    def __init__(self, dims: int, channels: int, layers: int) -> None:
        super().__init__()
        norms = [BATCH_NORM[dims](channels + 2 * i) for i in range(layers)]
        self.norms = nn.ModuleList(norms)
        self.convs = nn.ModuleList([CONV[dims](channels + 2 * i, 2, 3, padding=1) for i in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            values.append(conv(norm(torch.cat(values, 1)).relu()))
        return torch.cat(values, 1)


class RandomNet(nn.Module):
    """Steps that each read values before them, and a choice of them as result.

    Args:
        steps: modules, with the numbers of the values that they read; value 0 is the input.
        outputs: numbers of values.
        kind: "tensor" (of one output), "tuple" or "dict".
    """

    def __init__(self, steps: list[tuple[nn.Module, tuple[int, ...]]], outputs: list[int], kind: str) -> None:
        super().__init__()
        self.steps = nn.ModuleList([step for step, _ in steps])
        self.reads = [reads for _, reads in steps]
        self.outputs, self.kind = outputs, kind

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for step, reads in zip(self.steps, self.reads, strict=True):
            values.append(step(*(values[i] for i in reads)))
        chosen = [values[i] for i in self.outputs]
        if self.kind == "tensor":
            return chosen[0]
        return tuple(chosen) if self.kind == "tuple" else {f"out{i}": value for i, value in enumerate(chosen)}

    def extra_repr(self) -> str:
        return f"reads {self.reads} returns {self.outputs} as {self.kind}"


def _one_value(draw: st.DrawFn, shape: torch.Size) -> nn.Module:
    """A step that reads a value of this shape (N, C, *spatial)."""
    dims, channels, least = len(shape) - 2, shape[1], min(shape[2:])
    kinds = [conv, conv, depthwise, transposed, norm, activation, activation, pool, pad, view, scaled, whole]
    made: nn.Module = draw(st.sampled_from(kinds))(draw, dims, channels, least)
    return made


def conv(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    kernel = draw(st.sampled_from([1, 1, 3, 3, 2]))
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "replicate"]))
    dilation = draw(st.integers(1, 2))
    padding = draw(st.integers(0, min(2, least - 1)))
    if dilation * (kernel - 1) + 1 > least + 2 * padding:
        kernel = 1
    groups = 2 if channels % 2 == 0 and draw(st.integers(0, 3)) == 0 else 1
    width, stride, bias = 2 * draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2])), draw(st.booleans())
    return CONV[dims](channels, width, kernel, stride, padding, dilation, groups, bias, mode)


def depthwise(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    first = CONV[dims](channels, channels, 3, draw(st.sampled_from([1, 2])), 1, groups=channels, bias=False)
    middle = draw(st.sampled_from([nn.Identity(), nn.ReLU(), BATCH_NORM[dims](channels)]))
    return nn.Sequential(first, middle, CONV[dims](channels, 2 * draw(st.integers(1, 4)), 1))


def transposed(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    kernel, stride = draw(st.sampled_from([(2, 2), (3, 1), (4, 2), (3, 2)]))
    width, padding = 2 * draw(st.integers(1, 3)), (kernel - 1) // 2 if kernel > 2 else 0
    return TRANSPOSED[dims](channels, width, kernel, stride, padding)


def norm(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    affine = draw(st.booleans())
    choices: list[nn.Module] = [
        BATCH_NORM[dims](channels, affine=affine),
        INSTANCE_NORM[dims](channels, affine=affine) if least > 1 else nn.Identity(),  # torch refuses single pixels
        nn.GroupNorm(2 if channels % 2 == 0 else 1, channels, affine=affine),
        nn.LocalResponseNorm(draw(st.integers(1, 4)), alpha=0.5),
        nn.Softmax(1),
    ]
    return draw(st.sampled_from(choices))


def activation(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    choices = [*(make() for make in ACTIVATIONS), nn.PReLU(), nn.PReLU(channels)]
    return draw(st.sampled_from(choices))


def pool(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    kind = draw(st.sampled_from(list(POOLS)))
    if kind.startswith("adaptive"):
        return POOLS[kind][dims](draw(st.integers(1, least)))
    kernel, ceil = draw(st.integers(1, min(3, least))), draw(st.booleans())
    options = {} if kind == "max" else {"count_include_pad": draw(st.booleans())}
    return POOLS[kind][dims](kernel, draw(st.integers(1, 2)), kernel // 2, ceil_mode=ceil, **options)


def pad(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
    most = min(2, least - 1)
    amounts = [draw(st.integers(0, most)) for _ in range(2 * dims)]
    if draw(st.booleans()):
        scale = draw(st.integers(1, 2))
        resize = {2: "bilinear", 3: "trilinear"}[dims] if draw(st.booleans()) else "nearest"
        return nn.Upsample(scale_factor=scale, mode=resize)
    return Call(lambda x: F.pad(x, amounts, mode=mode))


def view(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    half = max(1, channels // 2)
    spatial = tuple(range(2, dims + 2))
    choices: list[Callable[[Tensor], Tensor]] = [
        lambda x: x[:, :half],
        lambda x: x[:, half:] if channels > 1 else x,
        lambda x: x.chunk(2, 1)[-1],
        lambda x: x[..., 1:] if least > 1 else x,
        lambda x: x[:, :, ::2],
        lambda x: x.transpose(-1, -2),
        lambda x: x.permute(0, *spatial, 1).contiguous().permute(0, -1, *range(1, dims + 1)),
        lambda x: x.flip(-1),
        lambda x: x.mean(spatial)[(..., *[None] * dims)],
        lambda x: x + torch.cat([x.mean(spatial), x.mean(spatial)], 1)[:, channels:].relu()[(..., *[None] * dims)],
        lambda x: (
            x.reshape(len(x), channels // half, half, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
            if channels == 2 * half
            else x
        ),
        lambda x: F.pixel_shuffle(x, 2) if dims == 2 and channels % 4 == 0 else x,
        lambda x: x.clone(),
        lambda x: x.movedim(1, -1).reshape(x.shape),
        lambda x: x.transpose(-1, -2).reshape_as(x).mean(-1, keepdim=True).expand_as(x),
        lambda x: x.sum(1, keepdim=True),
    ]
    return Call(draw(st.sampled_from(choices)))


def scaled(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    choices: list[Callable[[Tensor], Tensor]] = [
        lambda x: x * 1.5 - 0.25,
        lambda x: (x + 1) / 2,
        lambda x: 1 - x,
        lambda x: x.clamp(-1, 0.5),
        lambda x: (x * 0.5).add_(0.1).relu_(),
        lambda x: x.abs() + x,
        lambda x: x + x,
        lambda x: x * torch.linspace(1, 2, x.shape[-1], dtype=x.dtype, device=x.device),
        lambda x: (
            x - torch.linspace(-1, 1, x[:1].numel(), dtype=x.dtype, device=x.device).view_as(x[:1]) if len(x) else x
        ),
        lambda x: x + x.new_ones(x.shape[2:]) - torch.zeros_like(x),
        lambda x: x / (x.abs().amax(1, keepdim=True) + 1),
        lambda x: torch.stack([x, x.tanh()], -1).mean(-1) - x.mean(-1, keepdim=True),
        lambda x: (torch.stack([x, x.relu()], 1) * x.mean(-1, keepdim=True).unsqueeze(1)).sum(1),
        lambda x: F.dropout(x, 0.5, training=False),
    ]
    return Call(draw(st.sampled_from(choices)))


def whole(draw: st.DrawFn, dims: int, channels: int, least: int) -> nn.Module:
    return draw(
        st.sampled_from([Squeeze(dims, channels), Attention(channels), Tokens(channels), Dense(dims, channels, 3)])
    )


def _several(draw: st.DrawFn, values: list[Tensor]) -> tuple[nn.Module, tuple[int, ...]]:
    """A sum, product or join of a value and others that fit it."""
    first = draw(st.integers(0, len(values) - 1))
    same = [i for i, v in enumerate(values) if v.shape == values[first].shape]
    fit = [i for i, v in enumerate(values) if v.shape[2:] == values[first].shape[2:]]
    kind = draw(st.sampled_from(["add", "mul", "cat", "cat", "cat", "stack", "sub", "div"]))
    second = draw(st.sampled_from(fit if kind == "cat" else same))
    if kind == "cat":
        third = draw(st.sampled_from(fit))
        reads = (first, second, third)[: draw(st.integers(2, 3))]
        return Call(lambda *v: torch.cat(v, 1)), reads
    if kind == "stack":
        return Call(lambda a, b: torch.cat([a, b], -1)), (first, second)
    if kind == "div":
        return Call(lambda a, b: a / (b.abs() + 1)), (first, second)
    function = {"add": torch.add, "mul": torch.mul, "sub": torch.sub}[kind]
    return Call(lambda a, b: function(a, b)), (first, second)


@st.composite
def graphs(draw: st.DrawFn, dims: int) -> tuple[RandomNet, tuple[int, ...]]:
    """A float64 network in eval mode with random weights, and the shape of its input."""
    spatial = [draw(st.integers(4, 8)) for _ in range(dims)]
    shape = (draw(st.sampled_from([1, 1, 2, 0])), draw(st.integers(1, 5)), *spatial)
    values = [torch.zeros(1, *shape[1:], device="meta")]
    steps: list[tuple[nn.Module, tuple[int, ...]]] = []
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 2)) == 0:
            step, reads = _several(draw, values)
        else:
            source = draw(st.integers(max(0, len(values) - 3), len(values) - 1))
            step, reads = _one_value(draw, values[source].shape), (source,)
        try:
            result = step.to("meta").eval()(*(values[i] for i in reads))
        except (ValueError, RuntimeError) as error:
            if any(words in str(error) for words in REFUSED):
                continue
            raise
        if 0 < result.numel() <= MOST * (1 + dims):
            steps.append((step, reads))
            values.append(result)
    if any(isinstance(step, nn.InstanceNorm2d | nn.InstanceNorm3d) for step, _ in steps):
        shape = (max(1, shape[0]), *shape[1:])  # torch has no instance norm of no instances
    kind = draw(st.sampled_from(["tensor", "tensor", "tuple", "dict"]))
    others = [draw(st.integers(0, len(values) - 1)) for _ in range(0 if kind == "tensor" else draw(st.integers(0, 2)))]
    net = RandomNet(steps, [len(values) - 1, *others], kind).to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            fan_in = value[0].numel() if value.dim() > 1 else 4
            value.normal_(0.0, fan_in**-0.5, generator=generator)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return net, shape
