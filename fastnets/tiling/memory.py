"""Memory budgets: parsing them, and what is left of one."""

from __future__ import annotations

import ctypes
import gc
import re
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil
import torch

from fastnets.errors import InputError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
# What first calls leave behind (torch's kernels and reordered weights, codecs, thread stacks, heap in pieces): 20 to
# 90 MB were seen.
FIRST_CALL = 96_000_000
GPU_FIRST_CALL = 700_000_000  # CUDA's context, loaded kernels, workspaces of cuDNN and cuBLAS
_M_ARENA_MAX = -8  # malloc.h


def parse_bytes(text: str | int, option: str = "max_ram") -> int:
    """Bytes of "500MB", "2GiB", "1.5g" or a plain number."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise InputError(f"{option}={text!r} is not a size: write 500MB, 2GB or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def format_bytes(count: int) -> str:
    """Decimal units, as parse_bytes reads them."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def memory_in_use() -> int:
    """Bytes of this process that the system cannot take back.

    Without the pages of libraries, which it can: how many are resident depends on what it has cached: 84 MB
    and 136 MB of two installs of the same packages, at the same point of the same run.
    """
    memory = psutil.Process().memory_info()
    return int(memory.rss) - int(getattr(memory, "shared", 0))  # Linux counts pages of files here


def tile_budget(max_ram: str | int | None, reserve: int = 0) -> int:
    """Bytes that one tile may use so that the whole process, `reserve` included, stays under `max_ram`.

    Without a limit: half of the memory that is free now, 2 GB at most.
    """
    if max_ram is None:
        return min(2 * 10**9, int(psutil.virtual_memory().available) // 2)
    _share_heaps()
    limit = parse_bytes(max_ram)
    needed = memory_in_use() + FIRST_CALL + reserve
    if limit <= needed:
        raise InputError(
            f"max_ram={format_bytes(limit)} is below what the process needs before any tile "
            f"({format_bytes(needed)}): raise it"
        )
    return limit - needed


def gpu_budget(max_vram: str | int | None, device: torch.device) -> int:
    """Bytes of the GPU that one tile may use so that the process stays under `max_vram` there.

    Without a limit: four fifths of what is free now. On the CPU, where plans for a GPU are tested, the limit itself.
    """
    limit = None if max_vram is None else parse_bytes(max_vram, "max_vram")
    if device.type != "cuda":
        return 10**9 if limit is None else limit
    free, _ = torch.cuda.mem_get_info(device)
    if limit is None:
        return free * 4 // 5
    needed = torch.cuda.memory_allocated(device) + GPU_FIRST_CALL
    if limit <= needed:
        raise InputError(
            f"max_vram={format_bytes(limit)} is below what the process needs before any tile "
            f"({format_bytes(needed)}): raise it"
        )
    return min(free, limit - needed)


def _share_heaps() -> None:
    """Keeps glibc from giving every thread a heap of its own, which none returns: 85 of 581 MB on a slide run.

    One heap for all is worse: what the threads keep pins what the network frees.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 2)


def return_freed_memory() -> None:
    """Gives what the process has freed back to the system: glibc keeps it for later else."""
    gc.collect()  # traced programs are cycles
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMemory:
    """The most that memory_in_use() shows while the block runs, sampled every 10 ms, and that at its start."""

    def __init__(self) -> None:
        self.start = self.peak = memory_in_use()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="fastnets-memory", daemon=True)

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, memory_in_use())
            if self._stop.wait(0.01):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, memory_in_use())
