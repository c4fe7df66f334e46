"""What this machine is."""

from __future__ import annotations

import functools
import platform
from pathlib import Path


@functools.cache
def cpu_model() -> str:
    """The name of the processor, as the system gives it; with family and model, which that name may not tell apart."""
    info = Path("/proc/cpuinfo")
    pairs = [line.partition(":") for line in info.read_text(encoding="utf-8").splitlines()] if info.exists() else []
    found = {name.strip(): value.strip() for name, _, value in reversed(pairs)}
    name = found.get("model name") or platform.processor() or platform.machine()
    known = [f"{word} {found[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in found]
    return f"{name} ({', '.join(known)})" if known else name


@functools.cache
def cache_bytes(level: int) -> int:
    """The size of a core's cache of `level` 2, or of the one of `level` 3 that cores share.

    As Linux describes the caches of its first core; 1 and 16 MiB where it does not. (sysconf counts the third level
    once for each core of a virtual machine's host: 320 MiB instead of 32.)
    """
    for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            found, size = ((cache / name).read_text().strip() for name in ("level", "size"))
        except OSError:
            continue
        if found == str(level) and size.endswith("K"):
            return int(size[:-1]) << 10
    return {2: 1 << 20, 3: 16 << 20}[level]
