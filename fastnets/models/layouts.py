"""Key maps: what a state_dict of another implementation must go through to be ours, and how its input differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fastnets.models.recipe import MeanStd

State = dict[str, Any]
Own = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One value of `layout=`.

    rename: (the file's state_dict, the model's own) → the file's under the model's names. It leaves what it does
        not know, for the error that lists it.
    order, normalize: what the weights expect of a picture, where all of this layout's differ from the network's
        own `transform`; see `input_transform`.
    """

    rename: Callable[[State, Own], State]
    order: Literal["rgb", "bgr"] | None = None
    normalize: MeanStd | None = None
