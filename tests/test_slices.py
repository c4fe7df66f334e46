"""2D networks on volumes: slice by slice, and 2.5D views of points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models import OrthogonalViews, RandomViewAggregation, SliceBySlice, create_model
from fastnets.models.views import LocallyConnected, random_rotations


class Pixels(nn.Module):
    """For every pixel: the value, and the sum of its row."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, x.sum(3, keepdim=True).expand_as(x)), 1)


def volume(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_every_slice_of_every_axis_goes_through_the_network() -> None:
    x = volume(2, 1, 4, 5, 6)
    for axis, rows in ((0, 4), (1, 4), (2, 3)):  # the axis of x that is the slice's last
        out = SliceBySlice(Pixels(), (axis,), batch=3)(x)
        torch.testing.assert_close(out[:, :1], x)
        torch.testing.assert_close(out[:, 1:], x.sum(rows, keepdim=True).expand_as(x))


def test_axes_are_fused_by_their_mean() -> None:
    x = volume(1, 1, 4, 5, 6)
    each = [SliceBySlice(Pixels(), (axis,))(x) for axis in range(3)]
    torch.testing.assert_close(SliceBySlice(Pixels(), (0, 1, 2))(x), sum(each) / 3)


def test_classifiers_are_averaged_over_slices() -> None:
    model = create_model("resnet_cifar", in_channels=1).eval()
    x = volume(2, 1, 3, 16, 16)
    with torch.inference_mode():
        out = SliceBySlice(model, (0,), batch=2)(x)
        want = torch.stack([model(x[:, :, d]) for d in range(3)]).mean(0)
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)


def test_segmenters_give_volumes() -> None:
    model = create_model("unet", in_channels=1, width=2, depth=1).eval()
    assert SliceBySlice(model, (0, 1, 2))(volume(1, 1, 4, 6, 8)).shape == (1, 2, 4, 6, 8)


@pytest.mark.parametrize("axes", [(), (3,), (0, 0)])
def test_other_axes_are_refused(axes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="pass one or more of 0"):
        SliceBySlice(Pixels(), axes)


def test_what_slices_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match=r"\(1, 4, 4\): pass \(N, C, D, H, W\)"):
        SliceBySlice(Pixels())(volume(1, 4, 4))
    with pytest.raises(InputError, match=r"makes \(2, 2\) of slices of \(4, 4\)"):
        SliceBySlice(nn.MaxPool2d(2))(volume(1, 1, 4, 4, 4))
    with pytest.raises(InputError, match="batch=0"):
        SliceBySlice(Pixels(), batch=0)


# --- 2.5D


def test_plain_views_are_the_three_planes() -> None:
    """With a pixel as wide as a voxel, and the centre between voxels, the planes are means of two slices."""
    x = volume(12, 14, 16)
    views = OrthogonalViews(side=8, scales=(8.0,)).plain(x, torch.tensor([5.5, 6.5, 7.5]))
    assert views.shape == (1, 3, 8, 8)
    torch.testing.assert_close(views[0, 0], x[5:7, 3:11, 4:12].mean(0))
    torch.testing.assert_close(views[0, 1], x[2:10, 6:8, 4:12].mean(1))
    torch.testing.assert_close(views[0, 2], x[2:10, 3:11, 7:9].mean(2))


def test_spacing_and_scale_are_physical() -> None:
    """A linear ramp is read at the positions that spacing and scale say."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (20, 40, 40)), indexing="ij")
    views = OrthogonalViews(side=4, scales=(8.0, 16.0))
    centre, spacing = torch.tensor([10.0, 20.0, 20.0]), (2.0, 1.0, 0.5)
    in_mm = [torch.tensor([-1.5, -0.5, 0.5, 1.5]) * scale / 4 for scale in (8.0, 16.0)]
    for ramp, plane, rows, step in ((z, 1, True, 2.0), (y, 0, True, 1.0), (x, 0, False, 0.5), (x, 1, False, 0.5)):
        got = views.plain(ramp, centre, spacing=spacing)
        for n, offsets in enumerate(in_mm):
            line = got[n, plane, :, 0] if rows else got[n, plane, 0]
            start = 10.0 if ramp is z else 20.0
            torch.testing.assert_close(line, start + offsets / step)


def test_random_views_are_rotations_about_the_centre() -> None:
    """A ball around the point looks the same from everywhere, and what is sampled repeats with the seed."""
    grid = torch.meshgrid(*(torch.arange(33.0) - 16 for _ in range(3)), indexing="ij")
    ball = torch.exp(-sum(g**2 for g in grid) / 50)
    views = OrthogonalViews(shift=0.0, scales=(16.0, 20.0), translations=2, rotations=3)
    centre = torch.full((3,), 16.0)
    seen = views.sample(ball, centre, generator=torch.Generator().manual_seed(3))
    assert seen.shape == (len(views), 3, 32, 32) == (12, 3, 32, 32)
    plain = views.plain(ball, centre)
    for n in range(12):
        torch.testing.assert_close(seen[n], plain[n // 6], rtol=0, atol=0.02)
    assert torch.equal(seen, views.sample(ball, centre, generator=torch.Generator().manual_seed(3)))
    moved = OrthogonalViews(shift=3.0, scales=(16.0,)).sample(ball, centre, generator=torch.Generator().manual_seed(3))
    assert (moved - plain[0]).abs().amax((1, 2, 3)).min() > 0.02


def test_rotations_are_rotations() -> None:
    frames = random_rotations(500, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(frames @ frames.mT, torch.eye(3).expand(500, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(frames), torch.ones(500))
    # Every axis is as likely as any other: the mean is that of Rodrigues' formula over the sphere.
    torch.testing.assert_close(frames.mean(0), torch.eye(3) / 3, rtol=0, atol=0.1)


def test_views_aggregate_by_the_mean_probability() -> None:
    x = volume(40, 40, 40)
    centres = torch.tensor([[20.0, 20.0, 20.0], [5.0, 30.0, 18.0]])
    model = create_model("roth_25d").eval()
    aggregation = RandomViewAggregation(model, OrthogonalViews(translations=2, rotations=2))
    with torch.inference_mode():
        out = aggregation(x, centres, generator=torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(1)
        for n in range(2):
            views = aggregation.views.sample(x, centres[n], generator=generator)
            torch.testing.assert_close(out[n], model(views).softmax(1).mean(0))
    torch.testing.assert_close(out.sum(1), torch.ones(2))


def test_views_refuse_other_shapes() -> None:
    with pytest.raises(InputError, match=r"volume \(1, 4, 4, 4\).*pass \(D, H, W\)"):
        OrthogonalViews().plain(volume(1, 4, 4, 4), torch.zeros(3))
    with pytest.raises(InputError, match=r"\(28, 28\): sample views of 32×32"):
        create_model("roth_25d")(torch.zeros(1, 3, 28, 28))


def test_locally_connected_layers_are_convolutions_with_weights_of_their_own() -> None:
    layer = LocallyConnected(2, 3, 4)
    shared = torch.randn(3, 2, 3, 3)
    x = volume(2, 2, 4, 4)
    with torch.no_grad():
        layer.weight.copy_(shared.flatten(1).expand_as(layer.weight))
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, shared, padding=1), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        before = layer(x)
        layer.weight[5] += 1
        changed = (layer(x) - before).abs().sum((0, 1)) > 0
    assert changed.flatten().nonzero().tolist() == [[5]]


def test_drop_connect_drops_weights_in_training_only() -> None:
    fc = create_model("roth_25d").fc
    x = torch.randn(1, 2048)
    assert torch.equal(fc.eval()(x), fc(x))
    assert not torch.equal(fc.train()(x), fc(x))
