"""What every test runs in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastnets.ops.tuned import user_choices


@pytest.fixture(autouse=True)
def _no_tuned_choices(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own: what the user tuned changes no test, and tests change nothing of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    user_choices.cache_clear()
    yield folder
    user_choices.cache_clear()
