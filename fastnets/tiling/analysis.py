"""Follows the image's axes through a graph: receptive field, alignment, and which values of a tile are exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

import torch
from torch import nn

from fastnets.errors import InputError

from . import layer_rules as _layer_rules  # noqa: F401  registers its rules
from .rules import Deps, Map, Read, dependencies
from .trace import Graph, Shape, trace

INF = 1 << 60


@dataclass(frozen=True)
class Inexact:
    """A layer at which a tile cannot reproduce the whole image along a spatial axis (0 is the first)."""

    axis: int
    layer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.reason}"


@dataclass(frozen=True)
class Span:
    """One axis of a tile's tensor in the whole image's coordinates.

    Local index 0 lies at `start`; positions lo ≤ j < hi hold the values that the whole image gives.
    """

    start: int
    lo: int
    hi: int


class Analysis:
    """One trace with the image's spatial axes followed through it.

    `axes[i][d]` is the spatial axis (0, 1, …) that dimension d of value i follows, or None; `reads[i][d]` how;
    `inexact` the layers that forbid exact tiling; `alignment[a]` the grid that tiles must start on along axis a.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.inexact: list[Inexact] = []
        self.axes: list[tuple[int | None, ...]] = []
        self.reads: list[list[list[Read]]] = []
        self._jumps: list[tuple[Fraction, ...]] = []
        self.spatial = len(graph.steps[graph.images[0]].shape) - 2
        for index in range(len(graph.steps)):
            self._follow(index)
        self.alignment = tuple(self._alignment(axis) for axis in range(self.spatial))

    def shape(self, index: int) -> Shape:
        return self.graph.steps[index].shape

    def _follow(self, index: int) -> None:
        step = self.graph.steps[index]
        rank = len(step.shape)
        if index in self.graph.images:
            self.axes.append((None, None, *range(rank - 2)))
            self.reads.append([[] for _ in range(rank)])
            self._jumps.append((Fraction(1),) * rank)
            return
        if not any(axis is not None for i in step.inputs for axis in self.axes[i]):
            self.axes.append((None,) * rank)  # weights and constants
            self.reads.append([[] for _ in range(rank)])
            self._jumps.append((Fraction(1),) * rank)
            return
        deps = dependencies(step, self.shape)
        self._note_breaks(index, deps)
        axes: list[int | None] = []
        jumps: list[Fraction] = []
        reads: list[list[Read]] = []
        for d in range(rank):
            tracked = [r for r in deps.dims[d] if self.axes[r.source][r.dim] is not None]
            constant = len(tracked) < len(deps.dims[d]) and step.shape[d] > 1
            found = {self.axes[r.source][r.dim] for r in tracked}
            steps = {self._jumps[r.source][r.dim] * Fraction(r.map.num, r.map.den) for r in tracked}
            axis = min((a for a in found if a is not None), default=None)
            if axis is not None and (len(found) > 1 or len(steps) > 1 or constant):
                reason = "a constant that varies over space" if constant else "mixes axes or strides"
                self._note(axis, index, f"{step.op}: {reason}")
            axes.append(axis)
            jumps.append(min(steps, default=Fraction(1)))
            reads.append(tracked)
        self.axes.append(tuple(axes))
        self._jumps.append(tuple(jumps))
        self.reads.append(reads)

    def _note_breaks(self, index: int, deps: Deps) -> None:
        for broken in deps.breaks:
            axis = self.axes[broken.source][broken.dim]
            if axis is not None:
                self._note(axis, index, broken.reason)

    def _note(self, axis: int, index: int, reason: str) -> None:
        found = Inexact(axis, self.graph.steps[index].layer, reason)
        if found not in self.inexact:
            self.inexact.append(found)

    def _alignment(self, axis: int) -> int:
        return lcm(
            *(
                jump.numerator
                for axes, jumps in zip(self.axes, self._jumps, strict=True)
                for a, jump in zip(axes, jumps, strict=True)
                if a == axis
            )
        )

    def output_dim(self, output: int, axis: int) -> int:
        """The dimension of output number `output` that follows spatial axis `axis`."""
        index = self.graph.outputs[output]
        dims = [d for d, a in enumerate(self.axes[index]) if a == axis]
        if len(dims) != 1:
            reasons = "; ".join(str(i) for i in self.inexact if i.axis == axis) or "it has no such dimension"
            raise InputError(
                f"the output of shape {self.shape(index)} does not follow spatial axis {axis} of the image: {reasons}"
            )
        return dims[0]

    def output_jump(self, output: int, axis: int) -> Fraction:
        """Input pixels per output pixel."""
        return self._jumps[self.graph.outputs[output]][self.output_dim(output, axis)]

    def output_length(self, output: int, axis: int) -> int:
        """The output's size along a spatial axis."""
        return self.shape(self.graph.outputs[output])[self.output_dim(output, axis)]

    def needs(self, output: int, axis: int, lo: int, hi: int, *, clip: bool = True) -> tuple[int, int]:
        """The input interval that output positions lo ≤ j < hi of `axis` read; clipped to the image unless told."""
        wanted: dict[int, tuple[int, int]] = {self.graph.outputs[output]: (lo, hi)}
        for index in range(self.graph.outputs[output], -1, -1):
            if index not in wanted or index in self.graph.images:
                continue
            lo, hi = wanted[index]
            for read in self._reads_along(index, axis):
                m, size = read.map, self.shape(read.source)[read.dim]
                a, b = (m.num * lo + m.lo) // m.den, (m.num * (hi - 1) + m.hi) // m.den + 1
                if clip:
                    # A tile loses what the layer cuts off at its ends (slices, negative padding), so it brings more.
                    length = self.length(index, axis)
                    unread = max(0, size - 1 - (m.num * (length - 1) + m.hi) // m.den)
                    a, b = min(a, m.num * lo // m.den), b + unread // m.num * m.num
                    if m.den > m.num:  # positions between two inputs exist only up to the last input's
                        b = max(b, ceil(Fraction(m.num * (hi - length), m.den)) + size)
                    if a < 0:
                        b = max(b, m.mirror_lo + 1)
                    if b > size:
                        a = min(a, size - 1 - m.mirror_hi)
                    a, b = min(max(a, 0), size - 1), max(min(b, size), 1)
                before = wanted.get(read.source, (a, b))
                wanted[read.source] = (min(a, before[0]), max(b, before[1]))
        found = [wanted[i] for i in self.graph.images if i in wanted]
        if not found:
            raise InputError(f"the output does not depend on the image along axis {axis}")
        return min(a for a, _ in found), max(b for _, b in found)

    def length(self, index: int, axis: int) -> int:
        """The size of value `index` along a spatial axis."""
        return self.shape(index)[self.axes[index].index(axis)]

    def _reads_along(self, index: int, axis: int) -> Iterator[Read]:
        for a, reads in zip(self.axes[index], self.reads[index], strict=True):
            if a == axis:
                yield from reads


def exact_span(whole: Analysis, tile: Analysis, axis: int, start: int, output: int = 0) -> Span:
    """Where the tile's output equals the whole image's along `axis`, for a tile that starts at `start`.

    Both are analyses of aligned graphs (`align.py`). lo == hi where nothing is exact (a misaligned start, say).
    """
    steps = whole.graph.steps
    spans: dict[int, Span] = {}
    for index in range(len(steps)):
        for d, axis_of in enumerate(whole.axes[index]):
            if axis_of != axis:
                continue
            size, local = whole.shape(index)[d], tile.shape(index)[d]
            if index in whole.graph.images:
                spans[index] = Span(start, start, start + local)
                continue
            pairs = list(zip(whole.reads[index][d], tile.reads[index][d], strict=False))
            found = [_through(spans[w.source], w, t, whole, tile) for w, t in pairs]
            if any(s is None for s in found) or len({s.start for s in found if s}) != 1:
                spans[index] = Span(0, 0, 0)
                continue
            known = [s for s in found if s is not None]
            lo = max(0, known[0].start, *(s.lo for s in known))
            hi = min(size, known[0].start + local, *(s.hi for s in known))
            spans[index] = Span(known[0].start, lo, max(lo, hi))
    return spans[whole.graph.outputs[output]]


def _through(span: Span, w: Read, t: Read, whole: Analysis, tile: Analysis) -> Span | None:
    """The span behind one read; None where tile and whole are not on one grid."""
    m: Map = w.map
    if (
        w.source != t.source
        or span.lo >= span.hi
        or (m.num, m.den, m.hi - m.lo) != (t.map.num, t.map.den, t.map.hi - t.map.lo)
    ):
        return None
    start, remainder = divmod(m.den * span.start + t.map.lo - m.lo, m.num)
    if remainder:
        return None
    size, local = whole.shape(w.source)[w.dim], tile.shape(t.source)[t.dim]
    # Beyond a true border both see the same padding, so everything there is exact.
    open_lo = span.lo == 0 and span.start == 0 and span.hi > m.mirror_lo
    open_hi = span.hi == size and span.start + local == size and span.lo < size - m.mirror_hi
    lo = -INF if open_lo else ceil(Fraction(span.lo * m.den - m.lo, m.num))
    hi = INF if open_hi else ceil(Fraction(span.hi * m.den - m.hi, m.num))
    return Span(start, lo, hi)


@dataclass(frozen=True)
class ReceptiveField:
    """Per spatial axis: output j reads `size` input pixels from offset + j·stride on (phases may read fewer).

    `stride` is below 1 where the output is finer than the input. `inexact` names the layers, if any, that make
    seam-free tiling impossible; `size` then does not count what they see.
    """

    size: tuple[int, ...]
    stride: tuple[Fraction, ...]
    offset: tuple[int, ...]
    inexact: tuple[Inexact, ...]

    @property
    def exact(self) -> bool:
        return not self.inexact


def receptive_field(model: nn.Module, example_inputs: torch.Tensor, *, output: int = 0) -> ReceptiveField:
    """The receptive field of one output of `model` (eval mode) at the shape of `example_inputs` (N, C, *spatial).

    `output` picks among several outputs. Raises InputError where torch.export refuses the model, or where the
    output no longer follows the image's axes (a classifier).
    """
    analysis = Analysis(trace(model, tuple(example_inputs.shape), dtype=example_inputs.dtype))
    sizes, strides, offsets = [], [], []
    for axis in range(analysis.spatial):
        stride = analysis.output_jump(output, axis)
        period = int(analysis.alignment[axis] / stride)
        reach = [analysis.needs(output, axis, j, j + 1, clip=False) for j in range(period)]
        sizes.append(max(hi - lo for lo, hi in reach))
        strides.append(stride)
        offsets.append(min(ceil(lo - j * stride) for j, (lo, _) in enumerate(reach)))
    return ReceptiveField(tuple(sizes), tuple(strides), tuple(offsets), tuple(analysis.inexact))
