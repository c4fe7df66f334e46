"""Weights under the names of other implementations, from files and from the Hub, and what they expect of a picture."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_classification import filled, load_fill, on_meta, reference
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models import create_model, get_entry, input_transform, load_weights, prepare
from fastnets.models.layout_registry import LAYOUTS

State = dict[str, Tensor]


def loads(name: str, rename: Callable[[State], State], layout: str, **options: Any) -> None:
    """A state under foreign names, made by `rename`, comes back as it was."""
    fill = load_fill()
    with torch.device("meta"):
        model = create_model(name, **options)
    own = {k: torch.from_numpy(fill.array(k, tuple(v.shape))) for k, v in model.state_dict().items()}
    got = LAYOUTS[layout].rename(rename(own), model.state_dict())
    counters = {k for k in own if k.endswith("num_batches_tracked")}
    assert got.keys() | counters == own.keys()
    for key, value in got.items():
        assert torch.equal(value, own[key]), key


def substituted(state: State, *pairs: tuple[str, str]) -> State:
    for pattern, replacement in pairs:
        state = {re.sub(pattern, replacement, k): v for k, v in state.items()}
    return state


def as_convolutions(state: State, side: int) -> State:
    """The matrices of a VGG as kernels: side×side for the first, 1×1 for the others."""
    sides = iter((side, 1, 1))
    return {k: v.reshape(len(v), -1, s, s) if v.ndim == 2 and (s := next(sides)) else v for k, v in state.items()}


@pytest.mark.parametrize("name", ["densenet121", "densenet169"])
def test_torchvision_before_2018(name: str) -> None:
    loads(name, lambda s: substituted(s, (r"(layer\d+\.(?:norm|conv))([12])", r"\1.\2")), "torchvision")


def test_torchvision_googlenet_without_its_auxiliary_heads() -> None:
    heads = {k: torch.zeros(()) for k in on_meta("googlenet", aux=True).state_dict() if k.startswith("aux")}
    assert heads
    loads("googlenet", lambda s: s | heads, "torchvision")
    loads("googlenet", lambda s: s, "torchvision", aux=True)


def test_timm_vgg() -> None:
    pairs = [(r"classifier\.0", "pre_logits.fc1"), (r"classifier\.3", "pre_logits.fc2"), (r"classifier\.6", "head.fc")]
    loads("vgg11_bn", lambda s: as_convolutions(substituted(s, *pairs), 7), "timm")


STAGES = {"mobilenet_v2": (1, 2, 3, 4, 3, 3, 1), "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1)}


@pytest.mark.parametrize("name", STAGES)
def test_timm_inverted_residuals(name: str) -> None:
    """timm's names by the shapes of the kernels, independently of the map."""
    places = [(stage, block) for stage, count in enumerate(STAGES[name]) for block in range(count)]
    prefix, first = ("features", 1) if name == "mobilenet_v2" else ("_blocks", 0)

    def rename(state: State) -> State:
        out = {}
        for key, value in state.items():
            parts = key.split(".")
            number = int(parts[1]) - first if parts[0] == prefix else -1
            if 0 <= number < len(places):
                stage, block = places[number]
                layer = _layer_of(key, state, last=(number == 0))
                out[f"blocks.{stage}.{block}.{layer}.{parts[-1]}"] = value
            else:
                out[f"{_end_of(key)}.{parts[-1]}"] = value
        return out

    loads(name, rename, "timm")


def _layer_of(key: str, state: State, *, last: bool) -> str:
    """Convolutions and norms of a block in the order of the state_dict, which is that of the network."""
    block = ".".join(key.split(".")[:2]) + "."
    order = list(dict.fromkeys(k.rpartition(".")[0] for k in state if k.startswith(block)))
    names = "conv_dw bn1 conv_pw bn2" if last else "conv_pw bn1 conv_dw bn2 conv_pwl bn3"
    return dict(zip(order, names.split(), strict=True))[key.rpartition(".")[0]]


def _end_of(key: str) -> str:
    ends = {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "features.18.0": "conv_head",
        "features.18.1": "bn2",
        "classifier.1": "classifier",
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    return ends[key.rpartition(".")[0]]


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("inception_resnet_v2", [("classif", "last_linear")]),
        ("inception_v4", []),
        ("xception", [(r"^fc\.", "last_linear.")]),
        ("densenet121", [("classifier", "last_linear")]),
        ("resnet50", [(r"^fc\.", "last_linear.")]),
        (
            "vgg16",
            [
                (r"classifier\.0", "linear0"),
                (r"classifier\.3", "linear1"),
                (r"classifier\.6", "last_linear"),
                ("^features", "_features"),
            ],
        ),
    ],
)
def test_cadene(name: str, pairs: list[tuple[str, str]]) -> None:
    loads(name, lambda s: substituted(s, *pairs), "cadene")


CAFFE_VGG16 = [f"conv{b}_{n}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)]
CAFFE_ALEXNET = [f"conv{n}" for n in range(1, 6)]


@pytest.mark.parametrize(
    ("name", "convolutions", "side"), [("vgg16", CAFFE_VGG16, 7), ("alexnet_2012", CAFFE_ALEXNET, 6)]
)
def test_caffe_in_any_order(name: str, convolutions: list[str], side: int) -> None:
    layers = [*convolutions, "fc6", "fc7", "fc8"]

    def rename(state: State) -> State:
        ours = list(dict.fromkeys(k.rpartition(".")[0] for k in state))
        new = dict(zip(ours, layers, strict=True))
        state = {
            f"{new[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in as_convolutions(state, side).items()
        }
        return dict(sorted(state.items(), reverse=True))

    loads(name, rename, "caffe")


def test_caffe_googlenet() -> None:
    branches = {"1.conv": "1x1", "2.0.conv": "3x3_reduce", "2.1.conv": "3x3", "3.0.conv": "5x5_reduce"}
    branches |= {"3.1.conv": "5x5", "4.1.conv": "pool_proj"}
    pairs = [(rf"inception(\d[a-e])\.branch{re.escape(ours)}\.", rf"inception_\1/{c}.") for ours, c in branches.items()]
    pairs += [(r"^conv1\.conv", "conv1/7x7_s2"), (r"^conv2\.conv", "conv2/3x3_reduce"), (r"^conv3\.conv", "conv2/3x3")]
    pairs += [(r"aux(\d)\.conv\.conv", r"loss\1/conv"), (r"aux(\d)\.fc1", r"loss\1/fc")]
    pairs += [(r"aux(\d)\.fc2", r"loss\1/classifier"), (r"^fc\.", "loss3/classifier.")]
    loads("googlenet_2014", lambda s: substituted(s, *pairs), "caffe", aux=True)


@pytest.mark.parametrize(("name", "numbered"), [("resnet50", False), ("resnet101", True)])
def test_caffe_resnet(name: str, numbered: bool) -> None:
    """The deep stage of ResNet-101 counts b1, b2, … where ResNet-50 spells."""
    ends = {"fc": "fc1000", "conv1": "conv1"}

    def rename(state: State) -> State:
        out = {}
        for key, value in state.items():
            layer, _, entry = key.rpartition(".")
            if entry == "num_batches_tracked":
                continue
            norm = "scale" if entry in ("weight", "bias") else "bn"
            if match := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)", layer):
                stage, block, kind, number = match.groups()
                letter = f"b{block}" if numbered and stage == "3" and int(block) > 0 else "abcdef"[int(block)]
                branch = "1" if kind == "downsample." else "2" + "abc"[int(number) - 1]
                kind = "res" if kind == "conv" or (kind == "downsample." and number == "0") else norm
                layer = f"{kind}{int(stage) + 1}{letter}_branch{branch}"
            elif layer == "bn1":
                layer = f"{norm}_conv1"
            out[f"{ends.get(layer, layer)}.{entry}"] = value
        return out

    loads(name, rename, "caffe", stride_in_1x1=True)


@pytest.mark.parametrize(
    ("fixture", "name", "options"),
    [
        ("monai_resnet18_3d", "resnet18", {"stem_stride": 1}),
        ("monai_densenet121_3d", "densenet121", {}),
    ],
)
def test_monai_in_3d(fixture: str, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    expected, fill = reference(fixture), load_fill()
    state = {k: torch.from_numpy(fill.array(k, tuple(s))) for k, s in expected["state"].items()}
    save_file(state, tmp_path / "w.safetensors")
    options |= {"dims": 3, "in_channels": 1, "num_classes": 2}
    model = create_model(name, **options, pretrained=tmp_path / "w.safetensors", layout="monai")
    x = torch.from_numpy(fill.input_array(tuple(expected["input"]["shape"]), expected["input"]["seed"]))
    with torch.inference_mode():
        out = model(x)
    assert fill.relative_error(out.numpy(), expected["outputs"]["out"]) <= 1e-4


def test_files_without_counters_load(tmp_path: Path) -> None:
    source = filled(create_model("resnet_cifar"))
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors")
    model = create_model("resnet_cifar", pretrained=tmp_path / "w.safetensors")
    assert not model.training
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())


def test_what_a_layout_does_not_know_is_listed(tmp_path: Path) -> None:
    state = create_model("resnet_cifar").state_dict()
    state["head.extra"] = torch.zeros(1)
    state["fc.weight"] = torch.zeros(3, 64)
    del state["conv1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as error:
        load_weights(create_model("resnet_cifar"), tmp_path / "w.safetensors", layout="cadene")
    for part in ("1 missing from the file (conv1.weight)", "1 not in the model (head.extra)", "fc.weight (3, 64)"):
        assert part in str(error.value)


# --- input transforms


def test_transform_of_torchvision() -> None:
    """Against the same steps written out: resize the shorter side, crop the centre, normalise."""
    image = np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8)
    small = np.asarray(Image.fromarray(image).resize((384, 256), Image.Resampling.BILINEAR), np.float64)
    want = (small[16:240, 80:304] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    got = prepare(image, input_transform(get_entry("resnet50")))
    assert got.shape == (1, 3, 224, 224)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got[0].numpy(), want.transpose(2, 0, 1), atol=1e-5)


def test_transform_of_caffe_is_attached_to_its_layout() -> None:
    red = np.zeros((224, 224, 3), np.uint8)
    red[..., 0] = 200
    plain = input_transform(get_entry("vgg16"))
    caffe = input_transform(get_entry("vgg16"), layout="caffe")
    assert (plain.order, caffe.order, caffe.size) == ("rgb", "bgr", 224)
    blue_first = prepare(red, caffe)[0, :, 0, 0]
    torch.testing.assert_close(blue_first, torch.tensor([-103.939, -116.779, 200 - 123.68]))


def test_transform_of_digits_pads_to_the_values_of_the_paper() -> None:
    digit = np.full((28, 28), 255, np.uint8)
    x = prepare(digit, input_transform(get_entry("lenet5")))
    assert x.shape == (1, 1, 32, 32)
    assert x[0, 0, 0, 0] == pytest.approx(-0.1)
    assert x[0, 0, 16, 16] == pytest.approx(1.175)


def test_transforms_refuse_what_is_no_picture() -> None:
    with pytest.raises(InputError, match="'unet' has no input transform"):
        input_transform(get_entry("unet"))
    with pytest.raises(InputError, match=r"float32 of shape \(3, 5, 5\): pass uint8"):
        prepare(np.zeros((3, 5, 5), np.float32), input_transform(get_entry("resnet18")))


# --- the Hub


class Hub(http.server.BaseHTTPRequestHandler):
    """What the Hub answers to HEAD and GET of …/resolve/<revision>/<file>, for the files of a folder."""

    def __init__(self, files: dict[str, bytes], *arguments: Any) -> None:
        self.files = files
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        match = re.fullmatch(r"/someone/net/resolve/([^/]+)/(.+)", self.path)
        if "out of order" in self.files:
            self._answer(503, {}, b"")
        elif match is None or match[1] not in ("main", "v2"):
            code = "RepoNotFound" if match is None else "RevisionNotFound"
            self._answer(404, {"X-Error-Code": code}, b"")
        elif match[2] not in self.files:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "c" * 40}, b"")
        else:
            body = self.files[match[2]]
            self._answer(200, {"X-Repo-Commit": "c" * 40, "ETag": f'"{len(body):040d}"'}, body)

    do_GET = do_HEAD

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A Hub on this machine; the test fills its files."""
    constants = pytest.importorskip("huggingface_hub.constants")
    files: dict[str, bytes] = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, files)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield files
        server.shutdown()


def saved(folder: Path, model: nn.Module) -> bytes:
    save_file(model.state_dict(), folder / "w.safetensors")
    return (folder / "w.safetensors").read_bytes()


def test_weights_come_from_the_hub(hub: dict[str, bytes], tmp_path: Path) -> None:
    source = create_model("resnet_cifar")
    hub["model.safetensors"] = saved(tmp_path, source)
    hub["old/net.bin"] = saved(tmp_path, create_model("lenet5_dense"))
    for reference_ in ("hf-hub:someone/net", "hf-hub:someone/net@v2", "hf-hub:someone/net:model.safetensors"):
        model = create_model("resnet_cifar", pretrained=reference_)
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())
    create_model("lenet5_dense", pretrained="hf-hub:someone/net:old/net.bin")
    hub["out of order"] = b""  # so this comes from the cache
    create_model("lenet5_dense", pretrained="hf-hub:someone/net:old/net.bin")


def test_torch_files_come_from_the_hub_where_there_is_no_safetensors(hub: dict[str, bytes], tmp_path: Path) -> None:
    torch.save(create_model("lenet5_dense").state_dict(), tmp_path / "w.bin")
    hub["pytorch_model.bin"] = (tmp_path / "w.bin").read_bytes()
    create_model("lenet5_dense", pretrained="hf-hub:someone/net")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf-hub:someone/net", "has no model.safetensors or pytorch_model.bin: name its file"),
        ("hf-hub:someone/net:w.pt", "has no w.pt"),
        ("hf-hub:nobody/nothing", "cannot be fetched.*404.*check the name"),
        ("hf-hub:someone/net@v9", "cannot be fetched.*404"),
        ("hf-hub:a/b/c", "cannot be fetched.*Repo id"),
    ],
)
def test_what_the_hub_lacks_is_said(hub: dict[str, bytes], name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("lenet5_dense", pretrained=name)
