"""The tables of measurements are those of the committed result files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "bench").exists(), reason="needs the repository")


def tables(*arguments: str) -> str:
    command = [sys.executable, "bench/tables.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_all_tables() -> None:
    assert (ROOT / "bench/results/README.md").read_text() == tables()


def test_tables_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for table in tables("--summary").strip().split("\n\n"):
        assert table in readme
