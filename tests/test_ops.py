"""Every implementation of every op in tests/cases against float64; tests/test_isa_levels.py: at every ISA level."""

from types import ModuleType
from typing import Any

import pytest
import torch
from harness import PLACEMENTS, check, modules

from fastnets.errors import InputError

DTYPES = {torch.float32: "", torch.bfloat16: "-bf16"}
ALL = [
    pytest.param(module, case, implementation, dtype, id=f"{module.OP.name}-{implementation}-{case.name}{suffix}")
    for module in modules()
    for dtype, suffix in DTYPES.items()
    if dtype in getattr(module, "DTYPES", (torch.float32,))
    for case in module.CASES
    for implementation in module.OP.names
    if not implementation.startswith("triton")  # tests/test_kernels_values.py: in a process that interprets them
]


@pytest.mark.parametrize(("module", "case", "implementation", "dtype"), ALL)
def test_equals_the_reference(module: ModuleType, case: Any, implementation: str, dtype: torch.dtype) -> None:
    refusals = {placement: check(module, case, implementation, placement, dtype) for placement in PLACEMENTS}
    assert implementation != "torch" or not any(refusals.values())
    if all(refusals.values()):
        pytest.skip(f"refused: {refusals['dense']}")


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.OP.name)
def test_some_kernel_runs_each_case(module: ModuleType) -> None:
    for case in module.CASES:
        assert module.OP.choose(module.make(case, seed=0)).name != "torch", case.name


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.OP.name)
def test_forced_implementation(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    call = module.make(module.CASES[0], seed=0)
    monkeypatch.setenv("FASTNETS_FORCE_IMPL", f"{module.OP.name}=torch")
    assert module.OP.choose(call).name == "torch"
    monkeypatch.setenv("FASTNETS_FORCE_IMPL", "torch")
    assert module.OP.choose(call).name == "torch"
    monkeypatch.setenv("FASTNETS_FORCE_IMPL", f"{module.OP.name}=nothing,other=torch")
    with pytest.raises(InputError, match="FASTNETS_FORCE_IMPL is 'nothing': pass one of"):
        module.OP.choose(call)
