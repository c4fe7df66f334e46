"""Threads share the items of a loop: each is done once, whoever does it, with more threads than items or fewer."""

from __future__ import annotations

import os
import subprocess
import sys

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


AWAKE = """
import os, time, torch
from fastnets import _C
values = torch.ones(1 << 20)
assert not _C.openmp_is_awake(1)
torch.set_num_threads(2)
_C.openmp_is_awake(2)  # starts its threads, if torch has not
for _ in range(200):
    values.add_(1)
    if _C.openmp_is_awake(2):
        break
else:
    assert len(os.sched_getaffinity(0)) == 1  # where its threads do not spin
time.sleep(0.2)
assert not _C.openmp_is_awake(2)
"""


def test_openmp_is_awake_after_torch_and_then_sleeps() -> None:
    """In a process whose threads spin, as they do unless the environment says otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-P", "-c", AWAKE], env=environment, timeout=60, check=True)


FORK = """
import os, torch
from fastnets import _C
from fastnets.ops import activation
torch.set_num_threads(2)
x = torch.ones(1, 8, 200, 200)
x.add_(1)
activation(x, "relu", implementation="native")
child = os.fork()
if child == 0:
    y = activation(x, "relu", implementation="native").numpy()  # torch's own operations would wait for ever
    os._exit(0 if (y == 2).all() and not _C.openmp_is_awake(2) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_no_openmp() -> None:
    """Its threads are those of the parent, which a region would wait for."""
    command = [sys.executable, "-P", "-W", "ignore::DeprecationWarning", "-c", FORK]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_more_items_than_are_counted_are_refused() -> None:
    with pytest.raises(ValueError, match="x has 16777216 rows of pixels: pass at most 16777215 at a time"):
        activation(torch.empty(1 << 24, 1, 1), "relu", implementation="native")


def test_a_line_goes_to_another_core_and_back() -> None:
    assert 1e-9 < _C.round_trip() < 1e-2
