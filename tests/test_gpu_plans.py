"""Plans for a GPU, in a process that interprets their kernels; and where there is no GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastnets.engine import gpu_graph, optimize
from fastnets.errors import InputError


def test_values_of_all_plans() -> None:
    """TRITON_INTERPRET is read when kernels are imported: a process of its own."""
    path = Path(__file__).with_name("gpu_plans.py")
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--durations=10", str(path)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_refused_without_a_gpu() -> None:
    with pytest.raises(InputError, match="device is 'cuda', and torch finds no GPU: pass device='cpu'"):
        optimize(nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8), device="cuda")


class Cuda:
    """torch.cuda as far as a capture needs it, on the CPU: a replay runs the captured function again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.captured: Any = None
        self.fails = False
        names = ("Stream", "Event", "CUDAGraph")
        fakes = {name: lambda *_: self for name in names} | {"current_stream": lambda _: self}
        fakes |= {"stream": lambda _: nullcontext(), "graph": self.graph}
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(gpu_graph, "_turns", {0: gpu_graph._Turn(done=self)})

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.log.append(name)

    @contextmanager
    def graph(self, graph: Any, *, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.log.append(f"capture {capture_error_mode}")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        yield

    def replay(self) -> None:
        self.log.append("replay")
        for own, value in zip(self.captured.outputs, _double(self.captured.inputs), strict=True):
            own.copy_(value)


def _double(inputs: list[Tensor]) -> list[Tensor]:
    return [2 * inputs[0]]


def _captured(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> Any:
    layout = torch.empty(2, 3, device="meta").t()
    cuda.captured = gpu_graph.Captured([layout], torch.device("cuda", 0))
    monkeypatch.setattr(cuda.captured, "device", torch.device("cpu"))
    return cuda.captured


def test_a_captured_run_waits_for_the_one_before_and_copies_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    captured = _captured(cuda, monkeypatch)
    inputs = [torch.randn(3, 2), torch.randn(3, 2)]
    results = [captured.run([x], _double, lambda outputs: [y.clone() for y in outputs])[0] for x in inputs]
    assert torch.equal(results[0], 2 * inputs[0])
    assert torch.equal(results[1], 2 * inputs[1])
    assert captured.inputs[0].stride() == (1, 3)
    assert cuda.log == ["wait_stream", "capture thread_local", *["wait_event", "replay", "record"] * 2]


def test_a_failed_capture_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    cuda.fails = True
    captured = _captured(cuda, monkeypatch)
    with pytest.raises(RuntimeError, match="not permitted") as caught:
        captured.run([torch.randn(3, 2)], _double, list)
    assert any("pass cuda_graph=False" in note for note in caught.value.__notes__)
    assert not captured.turn.lock.locked()
