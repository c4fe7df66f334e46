"""Networks of this library and of others through optimize(): the outputs of their reference implementations."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import relative_error
from parity import fill
from reference_networks import NETWORKS, from_torchvision
from safetensors.torch import save_file
from torch import nn

from fastnets.engine import optimize
from fastnets.engine.kernels import Torch
from fastnets.models.weights import load_weights

PARITY = Path(__file__).parent / "parity"
LAYOUTS = {"unet_milesial": "milesial", "unet_mateuszbuda": "mateuszbuda"}
"""Fixtures whose names of weights are not those of our network."""


def fixture_of(name: str) -> dict[str, Any]:
    return json.loads((PARITY / f"{name.removeprefix('torchvision_').removeprefix('timm_')}.json").read_text())


def build(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say when they are imported, and of each other
        return NETWORKS[name]()


def fill_weights(model: nn.Module, name: str, shapes: dict[str, list[int]], folder: Path) -> None:
    state = {key: torch.from_numpy(fill.array(key, tuple(shape))) for key, shape in shapes.items()}
    if name not in LAYOUTS:
        model.load_state_dict(state, assign=True)
        return
    if name == "unet_milesial":
        state["mask_values"] = torch.zeros(2)
    save_file(state, folder / "weights.safetensors")
    ours = model[0] if isinstance(model, nn.Sequential) else model
    load_weights(ours, folder / "weights.safetensors", layout=LAYOUTS[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    """And every step is one of our kernels, without copies from one layout to another."""
    expected, model = fixture_of(name), build(name)
    fill_weights(model, name, expected["state"], tmp_path)
    x = torch.from_numpy(fill.input_array(tuple(expected["input"]["shape"]), expected["input"]["seed"]))
    optimized = optimize(model.eval(), x)
    with torch.inference_mode():
        outputs = optimized(x)
    outputs = outputs if isinstance(outputs, dict) else {"out": outputs}
    plan = optimized.plan_for(x)
    assert [node for node in plan.graph.nodes if isinstance(node.kernel, Torch) or node.op == "clone"] == []
    for key, summary in expected["outputs"].items():
        assert fill.relative_error(outputs[key].numpy(), summary) <= 1e-4, key


def test_channel_shuffles_need_no_torch() -> None:
    model, x = from_torchvision("shufflenet_v2_x0_5").eval(), torch.randn(1, 3, 64, 64)
    optimized = optimize(model, x)
    with torch.inference_mode():
        assert relative_error(optimized(x), model.double()(x.double())) <= 1e-5
    assert optimized.explain(runs=1).torch_share == 0
