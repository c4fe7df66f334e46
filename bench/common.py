"""What benchmarks share: which code they measured, on what, and how they call ours."""

from __future__ import annotations

import datetime
import importlib.metadata
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from fastnets import _C
from fastnets.machine import cpu_model


def provenance(threads: int, *packages: str) -> dict[str, object]:
    """The first columns of every result file."""
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu_model(),
        "threads": threads,
        "versions": " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
    }


def commit() -> str:
    """The short commit hash, with + where the tree differs from it; "none" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def recorded(chain: Callable[[], Tensor], tensors: Sequence[Tensor], threads: int) -> Callable[[], Tensor]:
    """The kernel calls of `chain`, which all lie in `tensors`, as one plan: what an engine runs, without Python."""
    plan = _C.Plan([(x.data_ptr(), x.untyped_storage().nbytes(), False) for x in tensors])
    with plan:
        kept = [*tensors, chain()]  # the plan has addresses only

    def run() -> Tensor:
        plan.run([], threads)
        return kept[-1]

    return run
