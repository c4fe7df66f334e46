"""The compiled module: one OpenMP runtime, the forced ISA level, and no code above the level in a function."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastnets import _C

ISA_NAMES = ["generic", "avx2", "avx512", "avx512_bf16", "amx_bf16"]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", code]  # -P: the installed package, not the folder
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
def test_one_openmp_runtime() -> None:
    code = (
        "import fastnets, torch\n"
        "from fastnets.ops.window_accumulate import window_accumulate as add\n"
        "add(torch.zeros(1, 1, 256, 256), torch.ones(1, 1, 256, 256), torch.zeros(1, 3, dtype=int),"
        " [torch.ones(256)] * 2)\n"
        "torch.ones(1 << 20).exp_()\n"
        "lines = open('/proc/self/maps').read().split('\\n')\n"
        "print(*sorted({l.split()[-1] for l in lines if 'libgomp' in l or 'libomp' in l or 'libiomp' in l}))\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, done.stdout


@pytest.mark.parametrize("level", _C.available_isas())
def test_forced_level(level: str) -> None:
    done = python("import fastnets._C as c; print(c.active_isa())", FASTNETS_ISA=level)
    assert done.stdout.strip() == level, done.stderr


def test_unknown_level_is_refused() -> None:
    done = python("import fastnets._C as c; c.active_isa()", FASTNETS_ISA="sse9")
    assert done.returncode != 0
    assert "FASTNETS_ISA=sse9 is not a level of this machine and build: unset it, or use one of generic" in (
        done.stderr
    )


def test_without_forcing_the_highest_level_is_used() -> None:
    done = python("import fastnets._C as c; print(c.active_isa())", FASTNETS_ISA="")
    assert done.stdout.strip() == _C.available_isas()[-1]
    assert _C.available_isas() == [name for name in ISA_NAMES if name in _C.available_isas()]


def test_each_function_keeps_to_its_level() -> None:
    """zmm registers and masks only under avx512 and amx, ymm also under avx2, tiles under amx: symbols say so."""
    objdump = shutil.which("objdump")
    if objdump is None or "avx2" not in _C.available_isas():
        pytest.skip("needs objdump and an x86 build")
    code = subprocess.run(
        [objdump, "--disassemble", "--no-show-raw-insn", _C.__file__], capture_output=True, text=True, check=True
    ).stdout
    functions = re.split(r"\n[0-9a-f]+ <(.+)>:\n", code)[1:]
    bodies = list(zip(functions[::2], functions[1::2], strict=True))
    wide = [name for name, body in bodies if re.search(r"%zmm|%k[1-7]", body)]
    paired = [name for name, body in bodies if re.search(r"\bv(dpbf16ps|cvtne2?ps2bf16)", body)]
    half = [name for name, body in bodies if re.search(r"%ymm|\bv[a-z0-9]+ .*%xmm", body)]
    tiled = [name for name, body in bodies if re.search(r"\b(tile|tdp)[a-z0-9]+ ", body)]

    def outside(found: list[str], *levels: str) -> list[str]:
        return [name for name in found if not any(level in name for level in levels)]

    assert wide
    assert half
    assert paired
    assert tiled
    assert outside(tiled, "amx_bf16") == []
    assert outside(paired, "avx512_bf16", "amx_bf16") == []
    assert outside(wide, "avx512", "amx_bf16") == []
    assert outside(half, "avx2", "avx512", "amx_bf16") == []
    assert any("window_accumulate_generic" in name for name, _ in bodies)  # else the names were stripped
