"""Measured configurations: read from a file of the GPU's name, checked, and written by bench/gpu_tune.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastnets.kernels import depthwise, tuned
from fastnets.kernels.launch import Launch, recording
from kernel_shapes import conv_call

from fastnets.errors import InputError
from fastnets.ops.conv_arguments import ConvCall

BENCH = Path(__file__).parents[1] / "bench"
CALL = conv_call((4, 64, 56, 56), 64, (3, 3), groups=64)


def launched(call: ConvCall = CALL, architecture: int = 90) -> Launch:
    with recording(architecture) as launches:
        depthwise.launch(call)
    return launches[0]


def write(folder: Path, entry: object, *, kernel: str = "depthwise", gpu: str = "sm_90") -> None:
    path = folder / f"{gpu}.json"
    path.write_text(json.dumps({"kernels": {kernel: {tuned.key(CALL): entry}}}), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tuned, "FOLDER", tmp_path)
    return tmp_path


def test_a_file_replaces_what_it_names(folder: Path) -> None:
    own = launched()
    assert (own.arguments["BLOCK_X"], own.warps) == (16, 4)
    write(folder, {"block_x": 32, "warps": 2}, gpu="sm_80")
    changed = launched(architecture=80)
    assert (changed.arguments["BLOCK_X"], changed.warps) == (32, 2)
    assert changed.arguments["BLOCK_C"] == own.arguments["BLOCK_C"]
    assert launched().arguments["BLOCK_X"] == 16  # another GPU


@pytest.mark.parametrize(
    "other",
    [
        conv_call((4, 64, 56, 57), 64, (3, 3), groups=64),
        conv_call((4, 64, 56, 56), 64, (3, 3), groups=64, dilation=2),
        conv_call((4, 64, 56, 56), 64, (5, 5), groups=64),
        ConvCall(**{**vars(CALL), "x": CALL.x.half(), "weight": CALL.weight.half()}),
    ],
)
def test_other_shapes_and_dtypes_keep_their_own(folder: Path, other: ConvCall) -> None:
    write(folder, {"warps": 1})
    assert launched().warps == 1
    assert launched(other).warps == 4


def test_what_is_optional_does_not_matter(folder: Path) -> None:
    write(folder, {"warps": 1})
    assert launched(conv_call((4, 64, 56, 56), 64, (3, 3), groups=64, residual=True)).warps == 1


def test_another_kernel_keeps_its_own(folder: Path) -> None:
    write(folder, {"warps": 1}, kernel="conv")
    assert launched().warps == 4


@pytest.mark.parametrize("entry", [{"block_z": 2}, {"warps": "4"}, {"warps": 2.0}, {"warps": True}])
def test_what_is_no_configuration_is_an_error(folder: Path, entry: dict[str, object]) -> None:
    write(folder, entry)
    with pytest.raises(InputError, match=r"sm_90\.json: depthwise: .* is .*: it needs the fields and types of Config"):
        launched()


@pytest.mark.parametrize("text", ["", "[]", '{"depthwise": {}}'])
def test_what_is_no_table_is_an_error(folder: Path, text: str) -> None:
    (folder / "sm_90.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"sm_90\.json has no table of kernels .*: write it anew, or remove it"):
        launched()


def test_a_trial_asks_no_file(folder: Path) -> None:
    write(folder, {"warps": 1})
    with tuned.trial({}) as own:
        assert launched().warps == 4
    ((place, config),) = own.asked.items()
    assert place == ("depthwise", tuned.key(CALL))
    with tuned.trial({place: depthwise.Config(1, 8, 64, 2)}):
        assert (launched().arguments["ROWS"], launched().warps) == (1, 2)
    assert config.warps == 4


def test_the_files_that_are_installed_are_of_a_run() -> None:
    """A file without the facts of its run would be invented."""
    for path in tuned.FOLDER.glob("*.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        assert facts["gpu"] == path.stem
        assert facts.keys() >= {"commit", "torch", "triton", "kernels"}


@dataclass(frozen=True)
class Numbers:
    block_m: int
    stages: int
    flat: bool = True


def test_climbing_finds_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from gpu_tune import climb

    def cost(config: Any) -> float:
        far = config.block_m > 64 or config.stages > 4  # does not fit the chip
        return float("inf") if far else 100 / config.block_m + abs(config.stages - 3)

    assert climb(Numbers(16, 1), cost, float("inf")) == (Numbers(64, 3), 100 / 64, 100 / 16 + 2)
    assert climb(Numbers(16, 1), cost, 0.0)[0] == Numbers(16, 1)


def test_the_tuner_writes_what_kernels_read(tmp_path: Path) -> None:
    """In the interpreter, where times mean nothing: it climbs, and the file has its form."""
    out = tmp_path / "interpreter.json"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    options = ["--cpu-check", "--only", "depthwise 3 64x112", "--seconds", "4", "--out", str(out)]
    command = [sys.executable, str(BENCH / "gpu_tune.py"), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "relu: depthwise: " in done.stdout
    facts = json.loads(out.read_text(encoding="utf-8"))
    assert facts["gpu"] == "interpreter"
    assert facts["kernels"].keys() <= {"depthwise"}


def test_the_tuner_invents_nothing() -> None:
    command = [sys.executable, str(BENCH / "gpu_tune.py"), "--cpu-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pass --out FILE" in done.stderr
