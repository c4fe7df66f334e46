"""The classification networks through optimize(): every family, in 2D and 3D."""

from __future__ import annotations

import pytest
import torch
from test_volumes import FAMILIES, side

from fastnets import optimize
from fastnets.models.registry import create_model, get_entry

NAMES = [*[n for n in FAMILIES if n != "inception_v4"], "inception_resnet_v2_2016", "alexnet_cam", "googlenet_cam"]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_optimize_keeps_the_outputs(name: str, dims: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, dims=dims, num_classes=10).eval()
    for module in model.modules():  # norms as training leaves them
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.75, 1.25)
    channels = len(get_entry(name).transform.normalize.mean)
    x = torch.randn(1, channels, *[side(name)] * dims)
    with torch.inference_mode():
        want = model(x)
        got = optimize(model, x)(x)
    assert (got - want).norm() <= 1e-4 * want.norm()
