"""The 3D forms of the classification networks, and weights inflated from 2D."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_classification import NAMES, filled, on_meta, parameters
from torch import nn

from fastnets.errors import InputError
from fastnets.models import inflate_weights
from fastnets.models.registry import create_model, get_entry

# The smallest side that all poolings leave something of.
SIDES = {
    **dict.fromkeys(["lenet5", "lenet5_dense"], 32),
    **dict.fromkeys(["resnet_cifar", "densenet_cifar"], 12),
    **dict.fromkeys(["alexnet", "alexnet_2012", "alexnet_cam"], 67),
    **dict.fromkeys(["inception_resnet_v1", "inception_resnet_v2", "inception_resnet_v2_2016"], 75),
    "inception_v4": 139,
}
# Inflation is tested on these with random weights; the others differ in sizes only.
FAMILIES = [
    "lenet5",
    "lenet5_dense",
    "alexnet",
    "alexnet_2012",
    "vgg11_lrn",
    "googlenet",
    "googlenet_2014",
    "resnet18",
    "resnet_cifar",
    "inception_v4",
    "inception_resnet_v1",
    "xception",
    "densenet_cifar",
    "mobilenet_v1",
    "mobilenet_v2",
    "efficientnet_lite0",
]


def side(name: str) -> int:
    return SIDES.get(name, 33)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_a_3d_form_with_the_names_of_2d(name: str) -> None:
    flat, deep = on_meta(name).state_dict(), on_meta(name, dims=3).state_dict()
    inflated = inflate_weights(flat)
    assert {k: v.shape for k, v in inflated.items()} == {k: v.shape for k, v in deep.items()}


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet18", {}, 33_716_904),
        ("resnet34", {}, 64_026_536),
        ("resnet50", {}, 48_247_976),
        ("resnet101", {}, 87_294_120),
        ("resnet152", {}, 119_452_840),
        ("densenet121", {}, 12_311_528),
        ("densenet161", {}, 41_704_936),
        ("densenet169", {}, 20_251_624),
        ("densenet201", {}, 27_295_720),
        ("densenet264", {}, 42_978_792),
        ("googlenet", {}, 13_312_264),
        ("xception", {}, 23_309_408),
        ("alexnet", {"head_depth": 6}, 255_581_864),
    ],
)
def test_counts_of_the_3d_forms(name: str, options: dict[str, Any], count: int) -> None:
    assert parameters(on_meta(name, dims=3, **options)) == count


@pytest.mark.parametrize(
    ("name", "convolutions", "whole"),
    [
        ("vgg11", 27_655_936, 767.9e6),
        ("vgg13", 28_209_088, 768.4e6),
        ("vgg16", 44_135_616, 784.3e6),
        ("vgg19", 60_062_144, 800.3e6),
        ("alexnet", 8_207_040, 255.6e6),
    ],
)
def test_the_head_reads_the_mean_or_the_whole_grid(name: str, convolutions: int, whole: float) -> None:
    depth = {"alexnet": 6}.get(name, 7)
    mean, full = on_meta(name, dims=3), on_meta(name, dims=3, head_depth=depth)
    assert parameters(mean.features) == convolutions
    assert parameters(mean.classifier) == parameters(on_meta(name).classifier)
    assert parameters(full) == pytest.approx(whole, abs=0.05e6)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "inception_v4" else []) for n in NAMES]
)
def test_3d_forms_run_forward_and_backward(name: str) -> None:
    """Every family on real numbers, the deeper networks of a family on shapes alone."""
    device = "cpu" if name in FAMILIES else "meta"
    channels = len(get_entry(name).transform.normalize.mean)
    with torch.device(device):
        model = create_model(name, dims=3, num_classes=10)
        x = torch.rand(1 if side(name) > 100 else 2, channels, *[side(name)] * 3, requires_grad=True)
    out = model(x)
    assert out.shape == (len(x), 10)
    out.square().mean().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None for g in gradients)
    if device == "cpu":
        assert all(g.isfinite().all() for g in (*gradients, x.grad))
        assert x.grad.abs().sum() > 0


def without_zero_padding(model: nn.Module) -> nn.Module:
    """Convolutions continue the border instead of padding with zeros: a constant along depth stays one."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and any(module.padding):
            module.padding_mode = "replicate"
            module._reversed_padding_repeated_twice = [p for p in reversed(module.padding) for _ in range(2)]
    return model


@pytest.mark.parametrize("rule", ["i3d", "centre"])
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("efficientnet_lite0", "inception_v4")])
def test_inflated_networks_give_the_output_of_2d(name: str, rule: str) -> None:
    """On a volume that is constant along depth. See `inflate_weights` on why "i3d" may not pad with zeros."""
    flat = filled(create_model(name, num_classes=10))
    deep = create_model(name, dims=3, num_classes=10).eval()
    deep.load_state_dict(inflate_weights(flat.state_dict(), rule=rule))
    if rule == "i3d":
        flat, deep = without_zero_padding(flat), without_zero_padding(deep)
    channels = len(get_entry(name).transform.normalize.mean)
    x = torch.randn(1, channels, *[side(name)] * 2, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = flat(x)
        got = deep(x[:, :, None].expand(-1, -1, side(name), -1, -1))
    assert (got - want).norm() <= 1e-4 * want.norm()


def test_inflated_modules_of_inception_v4() -> None:
    """Module by module: the whole network would need a volume of 139³."""
    flat = filled(create_model("inception_v4"))
    deep = create_model("inception_v4", dims=3).eval()
    deep.load_state_dict(inflate_weights(flat.state_dict(), rule="centre"))
    channels = (3, 32, 32, 64, 160, 192, *[384] * 5, *[1024] * 8, *[1536] * 3)
    for i, ours, inflated in zip(channels, flat.features, deep.features, strict=True):
        x = torch.randn(1, i, 9, 9, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            want, got = ours(x), inflated(x[:, :, None].expand(-1, -1, 9, -1, -1))
        torch.testing.assert_close(got, want[:, :, None].expand_as(got), rtol=1e-4, atol=1e-4)


def test_inflation_refuses_what_it_cannot_do() -> None:
    state = create_model("lenet5_dense").state_dict()
    with pytest.raises(InputError, match=r"rule='acs'.*'i3d' or 'centre'"):
        inflate_weights(state, rule="acs")
    with pytest.raises(InputError, match=r"c1.weight has shape \(6, 1, 5, 5, 5\), 3D already"):
        inflate_weights(inflate_weights(state))
