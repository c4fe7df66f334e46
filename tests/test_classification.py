"""The classification networks against their reference implementations, and their parameter counts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastnets.errors import InputError
from fastnets.models.lenet import C3_TABLE, LeNet5
from fastnets.models.registry import create_model, get_entry, list_models

PARITY = Path(__file__).parent / "parity"
NAMES = [name for name in list_models() if get_entry(name).transform is not None]
# Fixture, model, options.
REFERENCES = [
    ("alexnet", "alexnet", {}),
    ("vgg11", "vgg11", {}),
    ("vgg16", "vgg16", {}),
    ("vgg19_bn", "vgg19_bn", {}),
    ("googlenet", "googlenet", {"aux": True}),
    ("resnet18", "resnet18", {}),
    ("resnet50", "resnet50", {}),
    ("resnet101", "resnet101", {}),
    ("densenet121", "densenet121", {}),
    ("densenet161", "densenet161", {}),
    ("mobilenet_v2", "mobilenet_v2", {}),
    ("mobilenetv1_100", "mobilenet_v1", {}),
    ("legacy_xception", "xception", {}),
    ("inception_resnet_v2", "inception_resnet_v2", {}),
]


def load_fill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill", PARITY / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return fill


def reference(fixture: str) -> dict[str, Any]:
    return json.loads((PARITY / f"{fixture}.json").read_text())


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """The model in evaluation mode, with the weights of the fixtures."""
    fill = load_fill()
    state = {k: torch.from_numpy(fill.array(k, tuple(v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


def on_meta(name: str, **options: Any) -> torch.nn.Module:
    """The model without memory, for its counts and shapes."""
    with torch.device("meta"):
        return create_model(name, **options)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("fixture", "name", "options"), REFERENCES, ids=[f[0] for f in REFERENCES])
def test_outputs_are_those_of_the_reference(fixture: str, name: str, options: dict[str, Any]) -> None:
    expected, fill = reference(fixture), load_fill()
    model = on_meta(name, **options)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected["state"]
    assert parameters(model) == expected["parameters"]
    x = torch.from_numpy(fill.input_array(tuple(expected["input"]["shape"]), expected["input"]["seed"]))
    with torch.inference_mode():
        out = filled(model)(x)
    assert fill.relative_error(out.numpy(), expected["outputs"]["out"]) <= 1e-4


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("googlenet", {"aux": True}, 13_004_888),
        ("googlenet_2014", {"aux": True}, 13_378_280),
        *[("alexnet_2012", {"variant": v}, 60_965_224) for v in ("bvlc", "caffenet")],
        ("inception_resnet_v1", {"embedding": 512, "num_classes": 0}, 23_482_624),
        ("inception_resnet_v1", {"embedding": 512, "num_classes": 8631}, 27_910_327),
        ("inception_resnet_v1", {"embedding": 512, "num_classes": 10_575}, 28_907_599),
        ("resnet50", {"stride_in_1x1": True}, 25_557_032),
        ("resnet_cifar", {"depth": 32}, 464_154),
        ("resnet_cifar", {"depth": 44}, 658_586),
        ("resnet_cifar", {"depth": 56}, 853_018),
        ("resnet_cifar", {"depth": 110}, 1_727_962),
        ("resnet_cifar", {"depth": 1202}, 19_421_274),
        ("densenet_cifar", {"depth": 100}, 6_979_642),
        ("densenet_cifar", {"depth": 100, "growth": 24}, 27_249_082),
        ("densenet_cifar", {"depth": 100, "bottleneck": True}, 769_162),
        ("densenet_cifar", {"depth": 250, "growth": 24, "bottleneck": True}, 15_324_406),
        ("densenet_cifar", {"depth": 190, "growth": 40, "bottleneck": True}, 25_624_430),
    ],
)
def test_counts_of_other_configurations(name: str, options: dict[str, Any], count: int) -> None:
    assert parameters(on_meta(name, **options)) == count


@pytest.mark.parametrize("name", NAMES)
def test_entries_say_where_a_network_comes_from(name: str) -> None:
    entry = get_entry(name)
    assert entry.reference
    assert entry.headline
    assert entry.headline.endswith(")"), "the source of the number"
    model = on_meta(name)
    shape = (1, len(entry.transform.normalize.mean), *[entry.transform.size] * 2)
    assert model.eval()(torch.empty(shape, device="meta")).ndim == 2


# --- LeNet-5 of 1998


def test_lenet5_has_the_layers_of_the_paper() -> None:
    model = LeNet5()
    counts = [parameters(getattr(model, layer)) for layer in ("c1", "s2", "c3", "s4", "c5", "f6", "output")]
    assert counts == [156, 12, 1516, 32, 48_120, 10_164, 0]
    assert [len(inputs) for inputs in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_TABLE)) == 16
    centres = model.output.centres
    assert centres.abs().unique().tolist() == [1.0]
    distances = torch.cdist(centres, centres)
    assert distances[~torch.eye(10, dtype=torch.bool)].min() >= 4  # digits differ in 4 pixels or more


def test_lenet5_reads_only_the_maps_of_its_table() -> None:
    conv = LeNet5().c3
    torch.nn.init.normal_(conv.weight)
    for i in range(6):
        x = torch.zeros(1, 6, 5, 5)
        x[:, i] = 1
        seen = (conv(x)[0, :, 0, 0] - conv.bias).abs() > 0
        assert seen.tolist() == [i in inputs for inputs in C3_TABLE]


# --- what differs between variants


def test_lrn_of_the_paper_and_of_caffe() -> None:
    x = torch.rand(1, 8, 3, 3, generator=torch.Generator().manual_seed(0)) * 50
    for variant, k, alpha in (("paper", 2, 1e-4), ("bvlc", 1, 1e-4 / 5)):
        norm = create_model("alexnet_2012", variant=variant).features[2]
        want = torch.empty_like(x)
        for c in range(8):
            near = x[:, max(0, c - 2) : c + 3]
            want[:, c] = x[:, c] / (k + alpha * (near**2).sum(1)) ** 0.75
        torch.testing.assert_close(norm(x), want)


def test_strides_of_the_paper_and_of_torchvision() -> None:
    for in_1x1, strides in ((False, [(1, 1), (2, 2)]), (True, [(2, 2), (1, 1)])):
        block = on_meta("resnet50", stride_in_1x1=in_1x1).layer2[0]
        assert [block.conv1.stride, block.conv2.stride] == strides


@pytest.mark.parametrize("name", ["googlenet", "googlenet_2014"])
def test_auxiliary_heads_speak_in_training_only(name: str) -> None:
    model = on_meta(name, aux=True, num_classes=7)
    x = torch.empty(2, 3, 224, 224, device="meta")
    assert [tuple(y.shape) for y in model.train()(x)] == [(2, 7)] * 3
    assert model.eval()(x).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("alexnet_2012", {"variant": "keras"}, "variant='keras'.*'paper', 'bvlc' or 'caffenet'"),
        ("googlenet", {"variant": "keras"}, "variant='keras'.*'torchvision' or 'paper'"),
        ("resnet_cifar", {"depth": 21}, "depth=21.*6n"),
        ("densenet_cifar", {"depth": 41}, "depth=41.*pass 40"),
        ("lenet5", {"num_classes": 3}, "num_classes=3.*10 digits"),
        ("resnet18", {"dims": 1}, "dims=1.*dims=2 or 3"),
    ],
)
def test_wrong_options_say_what_to_do(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_dense"])
def test_lenet_refuses_other_sizes(name: str) -> None:
    with pytest.raises(InputError, match=r"\(28, 28\).*32"):
        create_model(name)(torch.zeros(1, 1, 28, 28))
