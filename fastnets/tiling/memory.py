"""Memory budgets: parsing them, and what is left of one."""

from __future__ import annotations

import re

import psutil

from fastnets.errors import InputError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str | int) -> int:
    """Bytes of "500MB", "2GiB", "1.5g" or a plain number."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise InputError(f"max_ram={text!r} is not a size: write 500MB, 2GB or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def format_bytes(count: int) -> str:
    """Decimal units, as parse_bytes reads them."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def tile_budget(max_ram: str | int | None) -> int:
    """Bytes that one tile may use so that the whole process stays under `max_ram`.

    Without a limit: half of the memory that is free now, 4 GB at most (larger tiles gain nothing on a CPU).
    """
    if max_ram is None:
        return min(4 * 10**9, int(psutil.virtual_memory().available) // 2)
    limit, used = parse_bytes(max_ram), int(psutil.Process().memory_info().rss)
    if limit <= used:
        raise InputError(
            f"max_ram={format_bytes(limit)} is below what the process already uses ({format_bytes(used)}): raise it"
        )
    return limit - used
