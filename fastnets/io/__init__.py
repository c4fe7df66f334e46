"""Images in, label maps out: one format a file, opened and written by suffix or name."""

from fastnets.io.atomic import atomic_path
from fastnets.io.protocol import ArrayLike, ClassInfo, LabelMap, Level, Reader, Region, Unit
from fastnets.io.registry import READERS, find_inputs, open_reader
from fastnets.io.writers import WRITERS, check_format, suffix_of, write

__all__ = [
    "READERS",
    "WRITERS",
    "ArrayLike",
    "ClassInfo",
    "LabelMap",
    "Level",
    "Reader",
    "Region",
    "Unit",
    "atomic_path",
    "check_format",
    "find_inputs",
    "open_reader",
    "suffix_of",
    "write",
]
