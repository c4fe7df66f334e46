"""How results look: tables for people, one JSON document for machines. Results go to stdout, the rest to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 200  # a pipe has no width, and rich would cut tables at 80 columns


def stdout() -> Console:
    """The console of results."""
    return _console(stderr=False)


def stderr() -> Console:
    """The console of errors, cautions and progress."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal or "COLUMNS" in os.environ else _PIPE_WIDTH
    # No markup: file names may hold brackets.
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def print_error(message: str, *, kind: str = "error: ") -> None:
    """One line on stderr."""
    line = Text.assemble("fastnets: ", (kind, "bold red"), " ".join(message.split()))
    stderr().print(line, soft_wrap=True)


def print_json(document: Any) -> None:
    """The one document of a --json run. Numbers that are not finite become null, which JSON has."""
    print(json.dumps(_plain(document), indent=2, ensure_ascii=False))


def print_fields(fields: Mapping[str, str], *, title: str | None = None) -> None:
    """Names and values, one a line. An empty value is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        if value:
            grid.add_row(name, value)
    console = stdout()
    if title is not None:
        console.print(Text(title, "bold"), soft_wrap=True)
    console.print(grid)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table with a header; columns named in `right` hold numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        # The last column takes what is left: others stay on one line.
        last = number == len(columns) - 1
        table.add_column(column, justify="right" if column in right else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout().print(table)


def times(values: Sequence[Any]) -> str:
    """Sizes along the axes: 181 × 217 × 181."""
    return " × ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def rate(pixels_a_second: float, dims: int) -> str:
    """Megapixels or megavoxels a second."""
    return f"{pixels_a_second / 1e6:.2f} {'Mvox' if dims == 3 else 'Mpx'}/s"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (float, Fraction)):
        number = float(value)
        return number if abs(number) < float("inf") else None
    return value
