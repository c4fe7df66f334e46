"""Puts the traces of a tile and of the whole image side by side, step for step.

A model that pads to a multiple or crops to a skip connection does so at one size and not at another, so one trace
has a slice or a padding where the other has nothing. An `alias` is put there, and both graphs get one numbering.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.utils._pytree import tree_flatten, tree_unflatten

from fastnets.errors import InputError

from .trace import Graph, Ref, Step

_ADAPTERS = {"slice", "narrow", "pad", "constant_pad_nd", "alias"}  # a slice that keeps all is an alias


class _Side:
    """One of the two graphs while it is renumbered."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[Step] = []
        self.new: list[int] = []  # old index -> new index
        self.alias: dict[int, int] = {}  # a step that repeats another -> that one

    @property
    def current(self) -> Step | None:
        return self.graph.steps[len(self.new)] if len(self.new) < len(self.graph.steps) else None

    def take(self, args: dict[str, Any]) -> None:
        """The current step goes next, with renumbered arguments."""
        step = self.current
        assert step is not None
        if step.op == "alias":  # its readers read the original
            self.alias[len(self.steps)] = args["self"].index
        self.new.append(len(self.steps))
        self.steps.append(replace(step, args=args))

    def insert(self, source: int) -> None:
        self.alias[len(self.steps)] = source
        self.steps.append(replace(self.steps[source], op="alias", args={"self": Ref(source)}, pointwise=False))

    def repeats(self, index: int, source: int) -> bool:
        while index in self.alias:
            index = self.alias[index]
            if index == source:
                return True
        return False

    def renumbered(self, step: Step) -> dict[str, Any]:
        leaves, spec = tree_flatten(step.args)
        leaves = [Ref(self.new[v.index]) if isinstance(v, Ref) else v for v in leaves]
        result: dict[str, Any] = tree_unflatten(leaves, spec)
        return result

    def done(self, outputs: tuple[int, ...]) -> Graph:
        return Graph(tuple(self.steps), tuple(self.new[i] for i in self.graph.images), outputs)


def align(whole: Graph, tile: Graph) -> tuple[Graph, Graph]:
    """Both graphs with one numbering. Raises InputError where the model computes something else for a tile."""
    a, b = _Side(whole), _Side(tile)
    while a.current is not None or b.current is not None:
        left, right = a.current, b.current
        if left is not None and right is not None and left.op == right.op:
            args_a, args_b = _meet(a, b, a.renumbered(left), b.renumbered(right))
            a.take(args_a)
            b.take(args_b)
        elif left is not None and left.op in _ADAPTERS:
            _pass(a, b, left)
        elif right is not None and right.op in _ADAPTERS:
            _pass(b, a, right)
        else:
            step = left or right
            raise InputError(
                f"the model computes other layers for a tile than for the whole image (from "
                f"{step.layer if step else 'the end'} on): pass halo=… to tile it without an analysis"
            )
    outputs = _meet(a, b, [Ref(a.new[i]) for i in whole.outputs], [Ref(b.new[i]) for i in tile.outputs])
    ends = [tuple(ref.index for ref in side) for side in outputs]
    return a.done(ends[0]), b.done(ends[1])


def _pass(one: _Side, other: _Side, step: Step) -> None:
    """`one` has an adapter here and `other` has not: it gets an alias, after those that stand for earlier adapters."""
    args = one.renumbered(step)
    source = args["self"].index
    source = max((i for i in one.alias if one.repeats(i, source)), default=source)
    one.take(args | {"self": Ref(source)})
    other.insert(source)


def _meet(a: _Side, b: _Side, args_a: Any, args_b: Any) -> tuple[Any, Any]:
    """Lets a reader on one side go through the alias that its counterpart's slice or padding was matched with."""
    flat_a, spec_a = tree_flatten(args_a)
    flat_b, spec_b = tree_flatten(args_b)
    refs_a = [i for i, v in enumerate(flat_a) if isinstance(v, Ref)]
    refs_b = [i for i, v in enumerate(flat_b) if isinstance(v, Ref)]
    for i, j in zip(refs_a, refs_b, strict=False):
        at_a, at_b = flat_a[i].index, flat_b[j].index
        if b.repeats(at_a, at_b):
            flat_b[j] = Ref(at_a)
        elif a.repeats(at_b, at_a):
            flat_a[i] = Ref(at_b)
    return tree_unflatten(flat_a, spec_a), tree_unflatten(flat_b, spec_b)
