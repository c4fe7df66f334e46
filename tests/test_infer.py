"""Tiled equals whole: random graphs in 2D and 3D, and the cases that random graphs reach rarely."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from graphs import networks
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fastnets.errors import InputError
from fastnets.tiling import infer, receptive_field
from fastnets.tiling.infer import make_plan

# float64 networks: what is left is the order of summation, far below a seam.
TOLERANCE = 1e-9
SEAMS = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _assert_same(tiled: torch.Tensor, whole: torch.Tensor) -> None:
    assert tiled.shape == whole.shape
    scale = float(whole.abs().max()) or 1.0
    worst = float((tiled - whole).abs().max()) / scale
    assert worst <= TOLERANCE, f"max |tiled - whole| is {worst:.2e} of the output's range"


def _check_graph(net: nn.Module, size: list[int], tile: list[int], seed: int) -> None:
    image = torch.randn(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    try:
        with torch.no_grad():
            whole = net(image)
    except RuntimeError:
        assume(False)  # the layers shrink this image to nothing
    assume(whole.numel() > 0)
    tiled = infer(net, image, tile=tile)
    _assert_same(tiled, whole)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@SEAMS
@given(net=networks(2), size=st.lists(st.integers(9, 48), min_size=2, max_size=2), data=st.data())
def test_random_graphs_2d_have_no_seams(net: nn.Module, size: list[int], data: st.DataObject) -> None:
    tile = data.draw(st.lists(st.integers(1, 24), min_size=2, max_size=2))
    _check_graph(net, size, tile, data.draw(st.integers(0, 9)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@SEAMS
@given(net=networks(3), size=st.lists(st.integers(7, 20), min_size=3, max_size=3), data=st.data())
def test_random_graphs_3d_have_no_seams(net: nn.Module, size: list[int], data: st.DataObject) -> None:
    tile = data.draw(st.lists(st.integers(4, 16), min_size=3, max_size=3))
    _check_graph(net, size, tile, data.draw(st.integers(0, 9)))


class Net(nn.Module):
    """A forward function with some layers."""

    def __init__(self, forward: Any, **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        self.register_buffer("precision", torch.zeros(1))  # float64, also where no layer says so
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def _conv(stride: int = 1, kernel: int = 3, inputs: int = 2, outputs: int = 2) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def _image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _whole(net: nn.Module, image: torch.Tensor) -> Any:
    with torch.no_grad():
        return net(image)


def _resize_to_input(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.b(F.interpolate(net.a(x), size=x.shape[2:], mode="bilinear"))


def _pad_inside(net: Any, x: torch.Tensor) -> torch.Tensor:
    """Pads itself to a multiple of 8 and crops the result, as many published networks do."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % 8, 0, -height % 8))
    y = net.up(net.down(x))
    return y[..., :height, :width]


def _shuffle(net: Any, x: torch.Tensor) -> torch.Tensor:
    """A channel shuffle as ShuffleNet writes it."""
    y = net.a(x)
    return net.b(y.view(-1, 2, 4, *y.shape[2:]).transpose(1, 2).contiguous().view(y.shape))


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (Net(_resize_to_input, a=_conv(2), b=_conv()), (48, 64)),
        (Net(_pad_inside, down=nn.Conv2d(2, 2, 8, 8), up=nn.ConvTranspose2d(2, 2, 8, 8)), (53, 70)),
        (Net(lambda n, x: n.a(x), a=nn.Sequential(_conv(4, 7), nn.MaxPool2d(3, 2, ceil_mode=True))), (61, 75)),
        (Net(lambda n, x: F.pixel_shuffle(n.a(x), 2), a=_conv(outputs=8)), (33, 40)),
        (Net(lambda n, x: n.a(F.pixel_unshuffle(x, 2)), a=_conv(inputs=8)), (40, 64)),
        (Net(lambda n, x: n.b(F.channel_shuffle(n.a(x), 2)), a=_conv(outputs=8), b=_conv(inputs=8)), (30, 31)),
        (Net(_shuffle, a=_conv(outputs=8), b=_conv(inputs=8)), (30, 31)),
        (Net(lambda n, x: n.b(n.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), a=nn.Linear(2, 2), b=_conv()), (30, 31)),
        (Net(lambda n, x: n.a(x).softmax(1) * n.a(x).amax(1, keepdim=True), a=_conv()), (30, 31)),
        (Net(lambda n, x: F.local_response_norm(n.a(x), 3), a=_conv(outputs=8)), (30, 31)),
        (Net(lambda n, x: torch.cat(torch.chunk(n.a(x), 2, 1)[::-1], 1), a=_conv(outputs=8)), (30, 31)),
    ],
)
def test_layers_of_real_networks(net: nn.Module, size: tuple[int, int]) -> None:
    image = _image(1, 2, *size)
    _assert_same(infer(net, image, tile=16), _whole(net, image))


def test_an_odd_image_is_padded_where_skip_connections_need_it() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.join(torch.cat([x, net.up(net.down(x))], 1))

    net = Net(forward, down=nn.Conv2d(2, 2, 4, 4), up=nn.ConvTranspose2d(2, 2, 4, 4), join=_conv(inputs=4))
    image = _image(1, 2, 37, 42)
    whole = _whole(net, F.pad(image, (0, 2, 0, 3)))[..., :37, :42]
    _assert_same(infer(net, image, tile=8), whole)


@pytest.mark.parametrize(
    ("net", "layer", "reason"),
    [
        (Net(lambda n, x: n.a(x), a=nn.InstanceNorm2d(2)), "a (InstanceNorm2d)", "statistics over space"),
        (Net(lambda n, x: n.a(x), a=nn.GroupNorm(1, 2)), "a (GroupNorm)", "statistics over space"),
        (Net(lambda n, x: x * n.a(x), a=nn.AdaptiveAvgPool2d(1)), "a (AdaptiveAvgPool2d)", "global pooling"),
        (
            Net(lambda n, x: x + F.interpolate(n.a(x), x.shape[2:]), a=nn.AdaptiveAvgPool2d(5)),
            "a (Ada",
            "global pooling",
        ),
        (Net(lambda n, x: x - x.mean((2, 3), keepdim=True)), "forward (Net)", "global pooling"),
        (Net(lambda n, x: x.softmax(-1)), "forward (Net)", "softmax over space"),
        (
            Net(lambda n, x: n.a(x), a=nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
            "a (Upsample)",
            "align_corners",
        ),
        (Net(lambda n, x: F.interpolate(x, scale_factor=1.5)), "forward (Net)", "not a whole factor"),
        (Net(lambda n, x: x + torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)), "forward (Net)", "varies over space"),
        (Net(lambda n, x: x.cumsum(2)), "forward (Net)", "cumsum over space"),
        (Net(lambda n, x: x.flip(3)), "forward (Net)", "flip over space"),
        (Net(lambda n, x: F.pad(x, (2, 2, 2, 2), mode="circular")), "", "circular|concatenates along space"),
    ],
)
def test_layers_that_forbid_tiling_are_named(net: nn.Module, layer: str, reason: str) -> None:
    image = _image(1, 2, 32, 32)
    with pytest.raises(InputError, match=reason) as caught:
        infer(net, image, tile=8)
    assert layer in str(caught.value)
    _assert_same(infer(net, image, tile=64), _whole(net, image))  # one tile is the whole image
    field = receptive_field(net, image) if "circular" not in reason else None
    assert field is None or not field.exact


def test_attention_is_named() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return tokens.transpose(1, 2).reshape(x.shape)

    net, image = Net(forward), _image(1, 2, 16, 16)
    with pytest.raises(InputError, match="merges or splits space"):
        infer(net, image, tile=8)
    _assert_same(infer(net, image), _whole(net, image))


def test_seams_are_accepted_on_request() -> None:
    image = _image(1, 2, 32, 32)
    net = Net(lambda n, x: n.a(n.b(x)), a=nn.InstanceNorm2d(2), b=_conv())
    tiled = infer(net, image, tile=16, exact=False)
    assert tiled.shape == image.shape
    assert not torch.allclose(tiled, _whole(net, image))


def test_a_writing_in_place_into_a_view_is_refused() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        y[..., 1:] += 1
        return net.a(y)

    with pytest.raises(InputError, match="in place into a view"):
        infer(Net(forward, a=_conv()), _image(1, 2, 32, 32), tile=8)


@pytest.mark.parametrize("reduce", ["argmax", "threshold", lambda y: y.amax(1)])
def test_reduce_per_region(reduce: Any) -> None:
    net, image = Net(lambda n, x: n.a(x), a=_conv(outputs=5)), _image(2, 2, 40, 33)
    whole = _whole(net, image)
    want = {"argmax": whole.argmax(1).to(torch.uint8), "threshold": (whole > 0.5).to(torch.uint8)}.get(
        reduce if isinstance(reduce, str) else "", whole.amax(1)
    )
    got = infer(net, image, tile=16, reduce=reduce)
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want)


def test_every_output_is_written_once_into_an_array_of_the_caller(tmp_path: Path) -> None:
    net, image = Net(lambda n, x: n.a(x), a=_conv()), _image(1, 2, 50, 41)
    source = zarr.create_array(store=tmp_path / "in.zarr", shape=image.shape, chunks=(1, 2, 16, 16), dtype="f8")
    source[:] = image.numpy()
    target = np.full(image.shape, np.nan)
    calls: list[tuple[int, int]] = []
    assert infer(net, source, tile=16, out=target, progress=lambda done, total: calls.append((done, total))) is target
    _assert_same(torch.from_numpy(target), _whole(net, image))
    assert calls == [(i + 1, 12) for i in range(12)]
    plan = make_plan(net, (2, 50, 41), tile=16)
    written = np.zeros((50, 41), int)
    for tile in plan:
        written[tile.region] += 1
    assert (written == 1).all()


def test_integer_images_and_one_of_several_outputs() -> None:
    net = Net(lambda n, x: {"a": n.a(x), "b": (n.a(x)[:, :1], x)}, a=_conv())
    image = np.arange(2 * 30 * 30, dtype=">u2").reshape(1, 2, 30, 30)
    whole = _whole(net, torch.from_numpy(image.astype(np.float64)))
    _assert_same(infer(net, image, tile=8, output=1), whole["b"][0])
    with pytest.raises(InputError, match="output"):
        infer(net, image, tile=8, output=3)


def test_halo_by_hand_for_networks_that_cannot_be_traced() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.a(x) if float(x.sum()) > 1e9 else net.b(x)  # data-dependent: export refuses

    net, image = Net(forward, a=_conv(2), b=_conv(2)), _image(1, 2, 64, 48)
    with pytest.raises(InputError, match=r"torch.export cannot trace.*halo="):
        infer(net, image, tile=16)
    _assert_same(infer(net, image, tile=16, halo=4), _whole(net, image))
    with pytest.raises(InputError, match=r"19 input pixels give 10 outputs.*multiples of"):
        infer(net, image, tile=15, halo=4)


def test_arguments_are_checked() -> None:
    net, image = Net(lambda n, x: n.a(x), a=_conv()), _image(1, 2, 32, 32)
    with pytest.raises(InputError, match="training mode"):
        infer(net.train(), image, tile=8)
    net.eval()
    with pytest.raises(InputError, match="tile=0"):
        infer(net, image, tile=0)
    with pytest.raises(InputError, match="expected \\(N, C"):
        infer(net, image[0, 0], tile=8)
    with pytest.raises(InputError, match="N = 0"):
        infer(net, image[:0], tile=8)
    with pytest.raises(InputError, match="reduce='mean'"):
        infer(net, image, tile=8, reduce="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="halo=3 without tile"):
        infer(net, image, halo=3)
    with pytest.raises(InputError, match="max_ram"):
        infer(net, image, max_ram="1MB")


@pytest.mark.parametrize(
    ("layers", "size", "stride", "offset"),
    [
        ([_conv()], 3, 1, -1),
        ([_conv(), _conv()], 5, 1, -2),
        ([nn.Conv2d(2, 2, 3, dilation=4)], 9, 1, 0),
        ([_conv(2, 7), nn.MaxPool2d(3, 2, 1), _conv()], 19, 4, -9),  # ResNet: 7 + 2·2 + 2·4
        ([nn.ConvTranspose2d(2, 2, 2, 2)], 1, Fraction(1, 2), 0),
        ([nn.Conv2d(2, 2, 5, 2), nn.Upsample(scale_factor=2)], 5, 1, -1),
    ],
)
def test_receptive_field(layers: list[nn.Module], size: int, stride: Fraction | int, offset: int) -> None:
    field = receptive_field(nn.Sequential(*layers).double().eval(), _image(1, 2, 64, 64))
    assert (field.size, field.stride, field.offset) == ((size,) * 2, (Fraction(stride),) * 2, (offset,) * 2)
    assert field.exact


def test_a_gigapixel_plan_needs_no_gigapixels() -> None:
    net = nn.Sequential(_conv(), nn.MaxPool2d(2), _conv(), nn.Upsample(scale_factor=2), _conv()).eval()
    plan = make_plan(net, (2, 100_000, 120_000), tile=4096)
    assert plan.output == (100_000, 120_000)
    assert len(plan) == 25 * 30
    assert max(plan.crop_shape) <= 4096 + 16
