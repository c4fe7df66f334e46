"""What kernels compute, again at the other ISA levels of this machine: a process chooses its level once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastnets import _C

FILES = ("test_ops", "test_conv_maxima", "test_conv_moments", "test_window_accumulate")


@pytest.mark.parametrize("level", _C.available_isas())
def test_every_isa_level(level: str) -> None:
    """All but the implementations in torch, which knows nothing of the level, and, at AVX-512's levels below the
    highest, the cases of float32, for which this process runs the same kernels (csrc/cpu/isa.h)."""
    if os.environ.get("FASTNETS_ISA") or level == _C.active_isa():
        pytest.skip("this process runs at that level, or was told its level")
    tests = "not torch"
    if level.startswith("avx512"):
        tests += " and (bf16 or not test_equals_the_reference)"
    files = [str(Path(__file__).parent / f"{name}.py") for name in FILES]
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-k", tests, "--no-header", *files]
    environment = {**os.environ, "FASTNETS_ISA": level}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
