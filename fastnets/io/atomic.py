"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """A temporary path beside `final`, which takes its name when the block ends well, and is removed otherwise.

    The block creates a file or a folder there. An existing file is replaced in one step. An existing folder
    cannot be on any system: it steps aside, comes back if the second rename fails, and is then deleted.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(final, "partial")
    try:
        yield partial
        _replace(partial, final)
    finally:
        _remove(partial)


def _beside(final: Path, word: str) -> Path:
    """A hidden sibling: the same file system, so that a rename is enough; unique, so that runs do not meet.

    The suffix is kept, because libraries choose formats by it.
    """
    suffix = "".join(final.suffixes[-2:])
    return final.with_name(f".{final.name}.{word}-{uuid.uuid4().hex[:8]}{suffix}")


def _replace(partial: Path, final: Path) -> None:
    if not final.is_dir():
        partial.replace(final)
        return
    aside = _beside(final, "old")
    final.replace(aside)
    try:
        partial.replace(final)
    except BaseException:
        aside.replace(final)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
