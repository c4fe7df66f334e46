"""Every Triton kernel, in every configuration that real shapes call for, compiled for GPUs that need not be there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fastnets.kernels import depthwise
from fastnets.kernels.launch import Launch, recording
from kernel_checks import ARCHITECTURES, compile_launch
from kernel_shapes import SHAPES, Shape, conv_call


def launches_of(shape: Shape, architecture: int) -> list[Launch]:
    with recording(architecture) as launches:
        shape.run()
    assert {launch.kernel.__name__ for launch in launches} >= {*shape.products, *shape.wide}
    return launches


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_compiles_to_what_it_should(shape: Shape) -> None:
    for launch in launches_of(shape, 90):
        name = launch.kernel.__name__
        compiled = compile_launch(launch, 90)
        problems = compiled.problems(90, product=name in shape.products, wide=name in shape.wide)
        assert not problems, f"{name}: {'; '.join(problems)}"


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != 90])
def test_compiles_for_other_chips(architecture: int) -> None:
    """Each kernel once, in the first shape that has it."""
    seen: set[object] = set()
    for shape in SHAPES:
        for launch in launches_of(shape, architecture):
            name = launch.kernel.__name__
            if launch.kernel not in seen:
                seen.add(launch.kernel)
                compiled = compile_launch(launch, architecture)
                problems = compiled.problems(architecture, product=name in shape.products, wide=name in shape.wide)
                assert not problems, f"{name}: {'; '.join(problems)}"


def _only_launch() -> Launch:
    with recording(90) as launches:
        depthwise.launch(conv_call((4, 64, 56, 56), 64, (3, 3), groups=64))
    (launch,) = launches
    assert compile_launch(launch, 90).problems(90, wide=True) == []
    return launch


def test_a_kernel_that_spills_is_found() -> None:
    launch = _only_launch()
    too_large = {**launch.arguments, "ROWS": 4, "BLOCK_X": 64}
    problems = compile_launch(replace(launch, arguments=too_large, warps=1), 90).problems(90)
    assert any("spilled" in problem for problem in problems)


def test_a_kernel_with_narrow_loads_is_found() -> None:
    launch = _only_launch()
    misaligned = torch.empty(4 * 64 * 56 * 56 + 1, dtype=torch.bfloat16, device="meta")[1:]
    arguments = {**launch.arguments, "x": misaligned.view(4, 56, 56, 64).movedim(-1, 1)}
    problems = compile_launch(replace(launch, arguments=arguments), 90).problems(90, wide=True)
    assert problems == ["few global loads are of 16 bytes"]


def test_a_kernel_without_tensor_cores_is_found() -> None:
    problems = compile_launch(_only_launch(), 90).problems(90, product=True)
    assert problems == ["no tensor core instruction", "no HGMMA"]


def test_what_does_not_fit_a_chip_is_found() -> None:
    compiled = replace(compile_launch(_only_launch(), 90), shared_bytes=200 << 10, registers=128, threads=1024)
    assert len(compiled.problems(80)) == 2
    assert len(compiled.problems(90)) == 1
