"""What benchmarks share: which code they measured, on what, and how they call ours."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import re
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def result_file(name: str) -> Path:
    """Where a table goes: a folder for each kind of processor, as what is fast on one need not be on another."""
    kind = re.sub(r"\W+", "-", cpu_model().lower()).strip("-")
    path = Path(__file__).parent / "results" / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def commit() -> str:
    """The short commit hash, with + where the tree differs from it but for results; "none" outside a repository."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changes = [*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"]
    changed = subprocess.run(changes, capture_output=True, text=True, check=False).stdout.strip()
    return head.stdout.strip() + "+" * bool(changed) or "none"


def recorded(chain: Callable[[], Tensor], tensors: Sequence[Tensor], threads: int) -> Callable[[], Tensor]:
    """The kernel calls of `chain`, which all lie in `tensors`, as one plan: what an engine runs, without Python."""
    plan = _C.Plan([(x.data_ptr(), x.untyped_storage().nbytes(), False) for x in tensors])
    with plan:
        kept = [*tensors, chain()]  # the plan has addresses only

    def run() -> Tensor:
        plan.run([], threads)
        return kept[-1]

    return run


def spread(values: Sequence[float]) -> float:
    """Interquartile range over median; of a single value 0."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def update(target: Path, rows: Iterable[Mapping[str, object]], *key: str) -> None:
    """Put rows into a table, in place of those whose `key` columns say the same; each names its own commit."""
    table: dict[tuple[str, ...], Mapping[str, object]] = {}
    if target.exists():
        with target.open(newline="") as file:
            table = {tuple(row[name] for name in key): row for row in csv.DictReader(file)}
    table |= {tuple(str(row[name]) for name in key): row for row in rows}
    columns = dict.fromkeys(name for row in table.values() for name in row)
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(table.values())
