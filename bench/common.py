"""What every benchmark writes beside its figures: which code they measured, and on what."""

from __future__ import annotations

import datetime
import importlib.metadata
import subprocess
from pathlib import Path

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
