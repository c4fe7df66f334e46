"""The Triton kernels against float64, in a process that interprets them; and where there is no GPU or no Triton."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from fastnets.errors import InputError
from fastnets.ops import gpu
from fastnets.ops.conv_arguments import window_of
from fastnets.ops.depthwise import depthwise
from fastnets.ops.inverted_bottleneck import OP as INVERTED_BOTTLENECK
from fastnets.ops.inverted_bottleneck import InvertedBottleneckCall


def test_values_of_all_kernels() -> None:
    """TRITON_INTERPRET is read when kernels are imported: a process of its own."""
    paths = [str(path) for path in sorted(Path(__file__).parent.glob("kernel_values*.py"))]
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--durations=10", *paths]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 100
    assert "skipped" not in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_refused_without_a_gpu() -> None:
    x, weight = torch.zeros(1, 4, 5, 5), torch.zeros(4, 1, 3, 3)
    with pytest.raises(InputError, match="'triton_depthwise' cannot run: x is on cpu; it needs a CUDA device"):
        depthwise(x, weight, implementation="triton_depthwise")


def test_nothing_imports_triton_before_it_is_needed() -> None:
    code = "import sys, fastnets; from fastnets.ops import conv, norm; sys.exit('fastnets.kernels' in str(sys.modules))"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_inverted_bottlenecks_are_one_kernel_where_they_outgrow_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=50 << 20))
    with FakeTensorMode():
        for batch, preferred in ((1, "parts"), (32, "triton")):
            x, shapes = torch.empty(batch, 16, 112, 112, device="cuda"), ((96, 16), (96, 1, 3, 3), (24, 96))
            weights = [torch.empty(shape, device="cuda") for shape in shapes]
            call = InvertedBottleneckCall(x, *weights, None, None, None, None, window_of(2, 1, 1, 1))
            assert INVERTED_BOTTLENECK.prefer(call) == preferred


def test_refused_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x, weight = torch.zeros(1, 4, 5, 5), torch.zeros(4, 1, 3, 3)
    with pytest.raises(InputError, match="triton is not installed: pip install"):
        depthwise(x, weight, implementation="triton_depthwise")
