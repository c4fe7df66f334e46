"""What every test runs in."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from fastnets.ops.tuned import user_choices


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that are not there yet, one a test."""
    root = tmp_path_factory.mktemp("caches")
    return (root / str(number) for number in count())


@pytest.fixture(autouse=True)
def _no_tuned_choices(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own: what the user tuned changes no test, and tests change nothing of the user's."""
    folder = next(_caches)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    user_choices.cache_clear()
    yield folder
    user_choices.cache_clear()
