"""What an op is made of: a float64-capable reference, and implementations in order of preference.

An implementation says in a sentence why it cannot run on given arguments. Automatic choice takes the first that
has no such reason and logs the others; a request by argument or by FASTNETS_FORCE_IMPL raises the reason.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from fastnets.errors import InputError

logger = logging.getLogger(__name__)

Call = TypeVar("Call")
"""The frozen dataclass of an op's checked arguments."""

FORCE = "FASTNETS_FORCE_IMPL"


@dataclass(frozen=True)
class Implementation(Generic[Call]):
    """One way to compute an op."""

    name: str
    can_run: Callable[[Call], str | None]
    """None, or the reason why it cannot: "x is torch.float64; it needs torch.float32"."""
    run: Callable[[Call], Any]


@dataclass(frozen=True)
class Op(Generic[Call]):
    """An op: its result on `call` is that of any implementation, to the tolerance that its cases state."""

    name: str
    reference: Callable[[Call], Any]
    """In plain torch; exact to float64 where the arguments are float64."""
    implementations: tuple[Implementation[Call], ...] = field(default=())
    prefer: Callable[[Call], str] | None = None
    """The implementation to try first on given arguments, where the order does not say it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The implementations' names, in order of preference."""
        return tuple(i.name for i in self.implementations)

    def choose(self, call: Call, requested: str | None = None) -> Implementation[Call]:
        """The implementation that runs `call`.

        Raises:
            InputError: the requested one does not exist or cannot run, or none can.
        """
        source = "implementation"
        if requested is None:
            requested, source = forced(self.name, self.names), FORCE
        if requested is not None and requested not in self.names:
            raise InputError(f"{self.name}: {source} is {requested!r}: pass one of {', '.join(self.names)}")
        reasons = []
        for candidate in self._ordered(call):
            if requested not in (None, candidate.name):
                continue
            reason = candidate.can_run(call)
            if reason is None:
                return candidate
            logger.debug("%s: not %s: %s", self.name, candidate.name, reason)
            reasons.append((candidate.name, reason))
        if requested is not None:
            raise InputError(f"{self.name}: {source} {requested!r} cannot run: {reasons[0][1]}")
        raise InputError(f"{self.name}: no implementation can run: " + "; ".join(map(": ".join, reasons)))

    def _ordered(self, call: Call) -> list[Implementation[Call]]:
        first = None if self.prefer is None else self.prefer(call)
        return sorted(self.implementations, key=lambda candidate: candidate.name != first)

    def __call__(self, call: Call, requested: str | None = None) -> Any:
        """Runs the chosen implementation."""
        return self.choose(call, requested).run(call)


def forced(op: str, names: tuple[str, ...]) -> str | None:
    """What FASTNETS_FORCE_IMPL asks of `op`: "conv=winograd,pool=torch", or one name for every op that has it."""
    for part in os.environ.get(FORCE, "").split(","):
        target, equals, name = part.strip().rpartition("=")
        if equals and target == op:
            return name
        if not equals and name in names:
            return name
    return None
