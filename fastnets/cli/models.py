"""`fastnets models`: the names that other commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fastnets.cli.options import Json
from fastnets.cli.show import print_json, print_table

if TYPE_CHECKING:
    from fastnets.models import ModelEntry


def models(pattern: Annotated[str, Parameter(show_default=False)] = "*", /, *, json: Json = False) -> None:
    """List the models, and which of them are ready for `fastnets predict`.

    For example:

        fastnets models
        fastnets models 'unet*'
        fastnets models --json

    Parameters
    ----------
    pattern
        Only names that match, with the wildcards * and ?.
    """
    from fastnets.errors import InputError
    from fastnets.models import get_entry, list_models

    entries = [get_entry(name) for name in list_models(pattern)]
    if not entries:
        raise InputError(f"no model is named like {pattern!r}: try '*{pattern.strip('*')}*', or no pattern for all")
    if json:
        print_json([describe(entry) for entry in entries])
        return
    columns = ("name", "dims", "parameters", "predict", "year", "summary, paper")
    print_table(columns, [_row(entry) for entry in entries], right=("parameters",))


def describe(entry: ModelEntry) -> dict[str, Any]:
    """What the registry knows, as plain data."""
    return {
        "name": entry.name,
        "dims": entry.dims,
        "parameters": entry.parameters,
        "year": entry.year,
        "summary": entry.summary,
        "paper": entry.paper,
        "weights": entry.weights,
        "reference": entry.reference,
        "known_weights": entry.known_weights,
        "headline": entry.headline,
        "input_size": None if entry.transform is None else entry.transform.size,
        "licence": entry.licence,
        "recipe": entry.recipe is not None,
        "ready": ready(entry),
    }


def ready(entry: ModelEntry) -> bool:
    """Whether `predict` works without a file of weights."""
    return entry.weights is not None and entry.recipe is not None


def readiness(entry: ModelEntry) -> str:
    """The same in words."""
    if ready(entry):
        return "ready"
    return "with --weights" if entry.recipe is not None else "no recipe"


def _row(entry: ModelEntry) -> tuple[str, ...]:
    dims = ", ".join(f"{d}D" for d in entry.dims)
    words = f"{entry.summary} ({entry.paper})"
    return entry.name, dims, f"{entry.parameters:,}", readiness(entry), str(entry.year), words
