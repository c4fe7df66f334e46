"""bench/gpu.sh works: each of its steps, as far as a machine without a GPU can say."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "bench" / "gpu.sh"


def test_gpu_bench_dry_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [str(SCRIPT), str(tmp_path), "--cpu-check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + (tmp_path / "measure.log").read_text(encoding="utf-8")
    with (tmp_path / "gpu.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 20
    for row in rows:
        assert row["note"] == "checked, not timed"
        assert float(row["error"]) <= 1e-5
        assert row["us"] == ""
    with (tmp_path / "models.csv").open(encoding="utf-8") as file:
        networks = list(csv.DictReader(file))
    assert len(networks) >= 8
    for row in networks:
        assert row["note"] == "checked, not timed", row
        assert float(row["error"]) <= 1e-5
        assert row["ms"] == ""
    summary = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    assert "values: ok" in summary
    assert "plans: ok" in summary
    assert "networks: ok" in summary


def test_gpu_bench_refuses_unknown_arguments(tmp_path: Path) -> None:
    done = subprocess.run([str(SCRIPT), str(tmp_path), "--fast"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pass --cpu-check, --tune, or none" in done.stderr
