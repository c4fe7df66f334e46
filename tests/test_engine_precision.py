"""optimize(): the dtypes of a network, of its inputs and outputs, and of the values between the kernels."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from test_engine import assert_same, image, small
from torch import nn

from fastnets.engine import Optimized, optimize
from fastnets.engine.kernels import Torch
from fastnets.errors import InputError


@torch.no_grad()
def test_a_cast_reads_its_input_as_it_lies() -> None:
    model, x = nn.Conv2d(8, 40, 1).eval(), torch.randn(2, 8, 9, 9)  # channels-last, as products are
    optimized = optimize(model, x, dtype="bf16")
    plan = optimized.plan_for(x)
    assert plan.layouts[plan.graph.inputs[0]].is_contiguous()
    for value in (x, x.contiguous(memory_format=torch.channels_last), torch.randn(2, 9, 9, 9)[:, 1:]):
        assert_same(optimized(value), model(value), 2e-2)


@torch.no_grad()
def test_bfloat16_is_near(tmp_path: Path) -> None:
    model = small()
    optimized = optimize(model, image(), dtype="bf16")
    y = optimized(image(2))
    assert y.dtype == torch.float32
    assert_same(y, model(image(2)), 2e-2)
    plan, exact = optimized.plan_for(image()), optimize(model, image()).plan_for(image())
    assert plan.storage.bytes < 0.7 * exact.storage.bytes
    assert not any(isinstance(node.kernel, Torch) for node in plan.graph.nodes)
    optimized.save(tmp_path / "small.safetensors")
    assert torch.equal(Optimized.load(tmp_path / "small.safetensors", dtype="bf16")(image(2)), y)
    with pytest.raises(InputError, match="pass one of fp32, bf16"):
        optimize(model, image(), dtype="fp8")  # type: ignore[arg-type]


class OfSixteenBits(nn.Module):
    """A norm in float32 among layers of 16 bits, an operation of torch, and outputs of several dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.first(x)
        scale = y.float().square().mean(1, keepdim=True).rsqrt()
        y = torch.special.erf(self.second((y * scale).to(x.dtype)))
        return y, y.argmax(1), y.float().mean((2, 3)), x


@pytest.mark.parametrize("values", ["fp32", "bf16"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
@torch.no_grad()
def test_a_model_of_16_bits_keeps_the_dtype_of_its_outputs(
    dtype: torch.dtype, limit: float, values: str, tmp_path: Path
) -> None:
    model, x = small().to(dtype), image(2).to(dtype)
    optimized = optimize(model, x, dtype=values)  # type: ignore[arg-type]
    y = optimized(x)
    assert y.dtype == dtype
    assert_same(y, copy.deepcopy(model).double()(x.double()), limit if values == "fp32" else 2e-2)
    by_torch = [node for node in optimized.plan_for(x).graph.nodes if isinstance(node.kernel, Torch)]
    assert [node.op for node in by_torch] == (["to"] if dtype == torch.float16 else [])
    optimized.save(tmp_path / "small.safetensors")
    loaded = Optimized.load(tmp_path / "small.safetensors", dtype=values)  # type: ignore[arg-type]
    assert loaded.peak_memory((2, 3, 16, 16)) == optimized.peak_memory((2, 3, 16, 16)) > 0
    assert torch.equal(loaded(x), y)


@pytest.mark.parametrize("values", ["fp32", "bf16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_dtypes_that_change_within(dtype: torch.dtype, values: str) -> None:
    torch.manual_seed(0)
    model, x = OfSixteenBits().to(dtype).eval(), image().to(dtype)
    outputs = optimize(model, x, dtype=values)(x)  # type: ignore[arg-type]
    expected = copy.deepcopy(model).double()(x.double())
    assert [y.dtype for y in outputs] == [y.dtype for y in model(x)]
    for index in (0, 2):
        assert_same(outputs[index], expected[index], 1e-5 if dtype == torch.float32 and values == "fp32" else 2e-2)
    assert torch.equal(outputs[3], x)
