"""Every Triton kernel, in every configuration that real shapes call for, compiled for GPUs that need not be there."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
from fastnets.kernels.launch import Launch, recording
from kernel_checks import ARCHITECTURES, Compiled, compile_launch
from kernel_shapes import SHAPES, Shape


def launches_of(shape: Shape, architecture: int) -> list[Launch]:
    with recording(architecture) as launches:
        shape.run()
    assert {launch.kernel.__name__ for launch in launches} >= {*shape.products, *shape.wide}
    return launches


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_to_what_it_should(architecture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shapes at once: they share the cores."""
    # CPython 3.11 counts the depth of trees for all threads together, and may then take one for broken.
    parse, alone = triton.JITFunction.parse, threading.Lock()

    def parse_alone(function: Any) -> Any:
        with alone:
            return parse(function)

    monkeypatch.setattr(triton.JITFunction, "parse", parse_alone)

    def problems(shape: Shape, launch: Launch) -> list[str]:
        name = launch.kernel.__name__
        compiled = compile_launch(launch, architecture)
        found = compiled.problems(architecture, product=name in shape.products, wide=name in shape.wide)
        return [f"{shape.name}: {name}: {problem}" for problem in found]

    launches = [(shape, launch) for shape in SHAPES for launch in launches_of(shape, architecture)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [problem for some in pool.map(problems, *zip(*launches, strict=True)) for problem in some]
    assert not found, "\n".join(found)


def one(kernel: str, shape: str, architecture: int) -> Launch:
    """That of `kernel` in the shape that is so called."""
    (chosen,) = [s for s in SHAPES if s.name == shape]
    return next(launch for launch in launches_of(chosen, architecture) if launch.kernel.__name__ == kernel)


DEPTHWISE, CONV = "depthwise-64-112x112-k3-residualTrue", "conv-64-64-128x128-dilation4"
SPILLS = {"ROWS": 4, "BLOCK_X": 32}
MISALIGNED = torch.empty(4 * 64 * 112 * 112 + 1, dtype=torch.bfloat16, device="meta")[1:]
FLOAT32 = {name: torch.empty(1, device="meta") for name in ("x", "weight", "out")}
BROKEN = [
    *((arch, "_rows", DEPTHWISE, SPILLS, {"warps": 1}, "bytes of stack") for arch in ARCHITECTURES),
    *((arch, "_rows", DEPTHWISE, {"x": MISALIGNED}, {}, "few global loads are of 16") for arch in ARCHITECTURES),
    *((arch, "_rows", DEPTHWISE, {"out": MISALIGNED}, {}, "stores are of 2 bytes") for arch in ARCHITECTURES),
    *((arch, "_product", CONV, FLOAT32, {}, "no \\b") for arch in ARCHITECTURES),
    (90, "_product", CONV, {}, {"warps": 2}, "HGMMA"),
    (100, "_product", CONV, {"BLOCK_M": 32}, {}, "UTC"),
    (80, "_product", CONV, {"BLOCK_M": 128, "BLOCK_N": 128}, {"warps": 8, "stages": 8}, "bytes of shared memory"),
]
"""Launches that the test above found right, with other arguments or options, and what is wrong with them then."""


@pytest.mark.parametrize(("architecture", "kernel", "shape", "arguments", "options", "problem"), BROKEN)
def test_a_broken_kernel_is_found(
    architecture: int, kernel: str, shape: str, arguments: dict[str, Any], options: dict[str, int], problem: str
) -> None:
    launch = one(kernel, shape, architecture)
    launch = replace(launch, arguments={**launch.arguments, **arguments}, **options)
    compiled = compile_launch(launch, architecture)
    found = compiled.problems(architecture, product=kernel == "_product", wide=kernel == "_rows")
    assert any(problem in each for each in found)


def test_too_many_registers_are_found() -> None:
    """The assembler would rather spill: numbers instead of a kernel."""
    compiled = Compiled(128, 0, 0, 1024, "", b"")
    assert compiled.problems(80) == ["128 registers x 1024 threads"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_threads_exchange_is_behind_barriers(architecture: int) -> None:
    """The inverted bottleneck: expanded values stored, a barrier, loaded for each tap, a barrier."""
    (shape,) = [s for s in SHAPES if s.name == "inverted-24-144-24-56-k3-s1-torch.bfloat16"]
    (launch,) = launches_of(shape, architecture)
    letters = {"tt.store": "S", "tt.load": "L"}
    steps = re.findall(r"\b(?:tt\.store|tt\.load|(?:ttg|gpu)\.barrier)\b", compile_launch(launch, architecture).ttgir)
    assert re.fullmatch("L+SBL+BL+S", "".join(letters.get(step, "B") for step in steps))
