"""Compiles recorded launches of Triton kernels for GPUs that need not be there, and reads what came out."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from fastnets.kernels.launch import Launch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, 90, 100)
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
"""What a block may use (CUDA C++ programming guide, technical specifications by compute capability)."""
REGISTERS = 65536
"""Of a multiprocessor, of each of the three."""
MMA = {80: r"\bHMMA\b", 90: r"\bHGMMA\b", 100: r"\bUTC\w*MMA\b"}
"""The instructions of the tensor cores: older ones run on later chips, slowly."""
_TYPES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint8: "u8",
}
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Compiled:
    """What the assembler says of a kernel."""

    registers: int
    stack_bytes: int
    shared_bytes: int
    threads: int
    ttgir: str
    cubin: bytes

    @functools.cached_property
    def sass(self) -> str:
        """The machine code, read from it: slower than all else here."""
        return _cuobjdump("-sass", self.cubin)

    def problems(self, architecture: int, *, product: bool = False, wide: bool = False) -> list[str]:
        """What is wrong with it. `product`: it needs tensor cores; `wide`: 16-byte loads, no 2-byte stores."""
        found = []
        if self.stack_bytes:
            found.append(f"registers spill to {self.stack_bytes} bytes of stack")
        if self.registers > 255 or self.registers * self.threads > REGISTERS:
            found.append(f"{self.registers} registers x {self.threads} threads")
        if self.shared_bytes > SHARED_BYTES[architecture]:
            found.append(f"{self.shared_bytes} bytes of shared memory")
        if product and not re.search(MMA[architecture], self.sass):
            found.append(f"no {MMA[architecture]}")
        if wide:
            loads = re.findall(r"\b(?:LDG|LDGSTS)\.E\S*", self.sass)
            # Of all load instructions: others read one number for a whole block, or a vector of weights.
            if sum(".128" in load for load in loads) < 0.4 * len(loads):
                found.append("few global loads are of 16 bytes")
            if re.search(r"\bSTG\.E\.U16", self.sass):
                found.append("global stores are of 2 bytes")
        return found


def compile_launch(launch: Launch, architecture: int) -> Compiled:
    """The kernel as `launch` would have it compiled: the same constants and the same multiples of 16."""
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[parameter.name], constants[(place,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = "*" + _TYPES[value.dtype]
            if value.storage_offset() * value.element_size() % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
        elif type(value) is int:
            signature[parameter.name] = "i32" if abs(value) < 1 << 31 else "i64"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            assert type(value) is float, f"{parameter.name} is {value!r}"
            signature[parameter.name] = "fp32"
    source = ASTSource(launch.kernel, signature, constants, attributes)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    cubin = made.asm["cubin"]
    usage = _cuobjdump("--dump-resource-usage", cubin)
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    return Compiled(registers, stack, made.metadata.shared, 32 * launch.warps, made.asm["ttgir"], cubin)


def _cuobjdump(what: str, cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_CUOBJDUMP, what, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
