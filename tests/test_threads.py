"""Threads share the items of a loop: each is done once, whoever does it, with more threads than items or fewer."""

from __future__ import annotations

import pytest
import torch
from harness import thread_count

from fastnets import _C
from fastnets.ops.activation import OP, ActivationCall, activation
from fastnets.ops.epilogue import activation_of

NATIVE = next(implementation for implementation in OP.implementations if implementation.name == "native")
LOOPS = 60


def doubling(rows: int, width: int) -> tuple[torch.Tensor, ActivationCall]:
    """Ones in rows with gaps between them, and the call that doubles them in place, a row an item or several."""
    frame = torch.ones(1, rows, width + 1, 3)
    x = frame[:, :, :width].movedim(-1, 1)
    return frame, ActivationCall(x, activation_of("activation", "none", ()), scale=torch.full((3,), 2.0), out=x)


def check(frame: torch.Tensor) -> None:
    """An item that was done twice, or never, is another power of two."""
    assert (frame[:, :, :-1] == 2.0**LOOPS).all()
    assert (frame[:, :, -1] == 1).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 61])
def test_in_a_plan(rows: int, threads: int) -> None:
    frame, call = doubling(rows, 5)
    plan = _C.Plan([(frame.data_ptr(), frame.nbytes, False)])
    with plan:
        for _ in range(LOOPS):
            NATIVE.run(call)
    for _ in range(20):
        frame.fill_(1)
        plan.run([], threads)
        check(frame)


@pytest.mark.parametrize("threads", [2, 3, 5, 70])
@pytest.mark.parametrize("rows", [1, 3, 69, 131])
def test_in_calls(rows: int, threads: int) -> None:
    """Of tensors that are large enough for more than one thread. Threads beyond 64 share parts of the items."""
    frame, call = doubling(rows, 40_000 // (3 * rows))
    with thread_count(threads):
        for _ in range(LOOPS):
            NATIVE.run(call)
    check(frame)


def test_more_items_than_are_counted_are_refused() -> None:
    with pytest.raises(ValueError, match="x has 16777216 rows of pixels: pass at most 16777215 at a time"):
        activation(torch.empty(1 << 24, 1, 1), "relu", implementation="native")


def test_a_line_goes_to_another_core_and_back() -> None:
    assert 1e-9 < _C.round_trip() < 1e-2
