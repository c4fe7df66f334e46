"""The choices that tuning made on this machine, in a file of the user's cache folder.

The file is a convenience: a missing, damaged or read-only one leaves every choice to the heuristic, and the log
says so.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from fastnets import _C
from fastnets.io.atomic import atomic_path
from fastnets.machine import cpu_model

logger = logging.getLogger(__name__)

Choice = dict[str, Any]
"""A configuration as JSON holds it."""


class TunedChoices:
    """The choices of one file, read when the first is asked for. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._choices: dict[str, Choice] | None = None

    def find(self, key: str) -> Choice | None:
        """What was stored for `key`, or None."""
        with self._lock:
            if self._choices is None:
                self._choices = self._read()
            return self._choices.get(key)

    def store(self, key: str, choice: Choice) -> None:
        """Keep `choice` for this process, and in the file for later ones."""
        with self._lock:
            # Another process may have written meanwhile; of two that write at once, one loses its last choice.
            self._choices = {**self._read(), **(self._choices or {}), key: choice}
            try:
                with atomic_path(self.path) as partial:
                    partial.write_text(json.dumps(self._choices, indent=1, sort_keys=True))
            except OSError as error:
                logger.warning(
                    "tuned choices are kept for this process only: %s cannot be written: %s", self.path, error
                )

    def _read(self) -> dict[str, Choice]:
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning("tuned choices are left aside: %s cannot be read: %s", self.path, error)
            return {}
        if not isinstance(found, dict):
            logger.warning("tuned choices are left aside: %s holds no table", self.path)
            return {}
        return {key: choice for key, choice in found.items() if isinstance(choice, dict)}


@functools.cache
def user_choices() -> TunedChoices:
    """Those of this user and this version of fastnets."""
    return TunedChoices(Path(user_cache_dir("fastnets")) / f"tuned-{version('fastnets')}.json")


@functools.lru_cache(maxsize=4096)
def key(op: str, shape: object, nthreads: int) -> str:
    """What decides a choice: the machine, the instruction set, the threads, the op and its shape, dtype included."""
    return f"{cpu_model()} | {_C.active_isa()} | {nthreads} threads | {op} | {shape}"
