"""What a running command shows on stderr: a bar for every image in a terminal, a line for every image elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from fastnets.cli.show import rate, stderr

Report = Callable[[str, int, int], None]
_NAME_WIDTH = 24


class RunProgress:
    """`start` announces an image and gives the function that the library reports to.

    `caution` and the lines are printed when an image has been found fit and the network is about to run: a run
    that is refused says only why. `quiet` leaves out everything but the caution.
    """

    def __init__(self, count: int, *, caution: str = "", quiet: bool = False) -> None:
        self._console = stderr()
        self._caution = caution
        self._count, self._started = count, 0
        self._quiet = quiet
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            _Rate(),
            _Stage(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, path: Path, pixels: int = 0, dims: int = 2) -> Report:
        """The report function (stage, done, total) of the next image; without `pixels` only tiles are counted."""
        self._started += 1
        headline = f"[{self._started}/{self._count}] {path}"
        task = self._bars.add_task(_shortened(path.name), total=None, stage="read", words="read")
        stage_shown, tiles, begin = "read", 0, time.perf_counter()

        def report(stage: str, done: int, total: int) -> None:
            nonlocal stage_shown, tiles
            if stage_shown == "read":
                self._print_once(headline)
            tiles = total if stage == "network" else tiles
            if stage != stage_shown:  # a fresh start, so that the speed is that of this stage
                stage_shown = stage
                each = pixels / max(1, tiles)
                self._bars.reset(task, total=total, stage=stage, words=stage, tile_pixels=each, dims=dims)
            if stage == "write" and done == total:
                words = f"done in {time.perf_counter() - begin:.1f} s"
                self._bars.update(task, completed=tiles, total=tiles, words=words)
            else:
                self._bars.update(task, completed=done, total=total)

        return report

    def _print_once(self, headline: str) -> None:
        if self._caution:
            self._console.print(Text(self._caution, "yellow"))
        self._caution = ""
        if self._bars.disable and not self._quiet:
            self._console.print(headline, soft_wrap=True)


class _Rate(ProgressColumn):
    """Tiles and pixels a second of the network; nothing in the other stages."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.fields["stage"] != "network" or not task.speed:
            return Text()
        words = f"{task.speed:.1f} tiles/s"
        if task.fields["tile_pixels"]:
            words += f", {rate(task.speed * task.fields['tile_pixels'], task.fields['dims'])}"
        return Text(words, "progress.data.speed", no_wrap=True)


class _Stage(ProgressColumn):
    """What runs, and how long it still takes."""

    def render(self, task: Task) -> Text:
        left = None if task.finished else task.time_remaining
        suffix = "" if left is None else f", {timedelta(seconds=int(left))} left"
        return Text(task.fields["words"] + suffix, "progress.remaining", no_wrap=True)


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 9]}…{name[-8:]}"
