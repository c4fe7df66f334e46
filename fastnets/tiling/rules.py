"""What each operation reads, dimension by dimension.

A rule says, for every output dimension, which input dimension it follows and by which Map; and which input
dimensions the operation consumes as a whole (a Break, with the reason in words). Rules do not know which
dimensions are spatial: `analysis.py` follows the image's axes through them and ignores the rest. An operation
without a rule breaks every dimension: the analysis never guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .trace import Ref, Shape, Step


@dataclass(frozen=True)
class Map:
    """Output position j reads the input from floor((num·j + lo) / den) to floor((num·j + hi) / den).

    Positions outside the input hold the operation's own padding. `mirror_lo` and `mirror_hi` say how far from
    the two borders that padding takes its values (reflect and replicate padding); zero padding takes none.
    """

    num: int = 1
    den: int = 1
    lo: int = 0
    hi: int = 0
    mirror_lo: int = 0
    mirror_hi: int = 0


@dataclass(frozen=True)
class Read:
    """Follows dimension `dim` of the value `source` by `map`."""

    source: int
    dim: int
    map: Map = Map()


@dataclass(frozen=True)
class Break:
    """Dimension `dim` of `source` is consumed so that a tile gives another result than the whole."""

    source: int
    dim: int
    reason: str


@dataclass
class Deps:
    """What one operation reads: an entry an output dimension (several reads where operands meet there)."""

    dims: list[list[Read]]
    breaks: list[Break] = field(default_factory=list)


Rule = Callable[[Step, Callable[[int], Shape]], Deps]
_RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Registers a rule for ATen operations by name, overload left out."""

    def register(function: Rule) -> Rule:
        for op in ops:
            _RULES[op] = function
        return function

    return register


def dependencies(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    """The rule's answer for `step`; `shape_of(i)` is the shape of value i."""
    if step.op in _RULES:
        deps = _RULES[step.op](step, shape_of)
    elif step.pointwise:
        deps = broadcast(step, shape_of)
    else:
        deps = consume_all(step, shape_of, f"{step.op} is not known to be local")
    if step.mutates_view:
        deps.breaks += consume_all(step, shape_of, "writes in place into a view").breaks
    return deps


def as_list(value: Any, length: int) -> list[int]:
    """An ATen integer list argument, with one value standing for all."""
    values = [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]
    return values * length if len(values) == 1 else values


def source(step: Step, name: str = "self") -> int:
    value = step.args[name]
    assert isinstance(value, Ref)
    return value.index


def same_dims(step: Step, shape_of: Callable[[int], Shape], name: str = "self") -> Deps:
    """Every output dimension follows the same dimension of one input."""
    index = source(step, name)
    return Deps([[Read(index, d)] for d in range(len(shape_of(index)))])


def consume_all(step: Step, shape_of: Callable[[int], Shape], reason: str) -> Deps:
    breaks = [Break(i, d, reason) for i in step.inputs for d in range(len(shape_of(i)))]
    return Deps([[] for _ in step.shape], breaks)


def broadcast(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    """Operands aligned at their last dimension; a dimension of size 1 is repeated."""
    rank = len(step.shape)
    dims: list[list[Read]] = [[] for _ in range(rank)]
    for index in step.inputs:
        shape = shape_of(index)
        for d, size in enumerate(shape):
            out = d + rank - len(shape)
            if size != 1 or step.shape[out] == 1:
                dims[out].append(Read(index, d))
    return Deps(dims)


for _op in (
    "input alias detach contiguous clone to _to_copy lift_fresh_copy type_as dropout feature_dropout alpha_dropout "
    "hardswish hardsigmoid relu6 silu mish gelu elu selu celu leaky_relu softplus softsign tanhshrink hardshrink "
    "logsigmoid rrelu prelu threshold getitem channel_shuffle native_dropout fill zero"
).split():
    _RULES[_op] = lambda step, shape_of: (
        Deps([[] for _ in step.shape])
        if not step.inputs
        else Deps([[Read(step.inputs[0], d)] for d in range(len(step.shape))])
    )


@rule("cat", "concat", "concatenate")
def _cat(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    rank = len(step.shape)
    along = int(step.args.get("dim", 0)) % rank
    inputs = [i for i in step.inputs if len(shape_of(i)) == rank]  # aten lets an empty 1-d tensor through
    dims = [[Read(i, d) for i in inputs] if d != along else [] for d in range(rank)]
    return Deps(dims, [Break(i, along, "concatenates along space") for i in inputs])


@rule("stack")
def _stack(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    along = int(step.args.get("dim", 0)) % len(step.shape)
    dims = [[Read(i, d) for i in step.inputs] for d in range(len(step.shape) - 1)]
    return Deps([*dims[:along], [], *dims[along:]])


@rule("split", "chunk", "split_with_sizes", "tensor_split", "glu")
def _split(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    deps = same_dims(step, shape_of)
    along = int(step.args.get("dim", 0)) % len(step.shape)
    deps.dims[along] = []
    deps.breaks.append(Break(step.inputs[0], along, f"{step.op} divides space"))
    return deps


@rule("slice", "narrow")
def _slice(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    deps = same_dims(step, shape_of)
    index = step.inputs[0]
    dim = int(step.args.get("dim", 0)) % len(step.shape)
    size = shape_of(index)[dim]
    start, stride = int(step.args.get("start") or 0), int(step.args.get("step") or 1)
    start = max(0, min(size, start + size if start < 0 else start))
    deps.dims[dim] = [Read(index, dim, Map(num=stride, lo=start, hi=start))]
    return deps


@rule("select", "unbind")
def _select(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    index = step.inputs[0]
    rank = len(shape_of(index))
    along = int(step.args.get("dim", 0)) % rank
    return Deps(
        [[Read(index, d)] for d in range(rank) if d != along],
        [Break(index, along, f"{step.op} takes positions out of space")],
    )


@rule("permute")
def _permute(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    return Deps([[Read(source(step), d % len(step.shape))] for d in step.args["dims"]])


@rule("transpose", "swapaxes", "movedim", "t", "numpy_T")
def _transpose(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    rank = len(step.shape)
    order = list(range(rank))
    if step.op == "movedim":
        origin = [d % rank for d in as_list(step.args["source"], 1)]
        target = [d % rank for d in as_list(step.args["destination"], 1)]
        rest = iter(d for d in range(rank) if d not in origin)
        order = [origin[target.index(d)] if d in target else next(rest) for d in range(rank)]
    elif step.op in ("t", "numpy_T"):
        order.reverse()
    else:
        a, b = (int(step.args[k]) % rank for k in (("dim0", "dim1") if "dim0" in step.args else ("axis0", "axis1")))
        order[a], order[b] = order[b], order[a]
    return Deps([[Read(step.inputs[0], d)] for d in order])


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def _reshape(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    """Dimensions that survive alone are followed; groups that are merged or split are consumed."""
    index = step.inputs[0]
    old, new = shape_of(index), step.shape
    dims: list[list[Read]] = [[] for _ in new]
    breaks: list[Break] = []
    for old_group, new_group in _matching_groups(old, new):
        if len(old_group) == len(new_group) == 1:
            dims[new_group[0]] = [Read(index, old_group[0])]
        else:
            breaks += [Break(index, d, f"{step.op} merges or splits space") for d in old_group if old[d] != 1]
    return Deps(dims, breaks)


def _matching_groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """The finest groups of dimensions with equal products, dimensions of size 1 left out on both sides."""
    left = [d for d, n in enumerate(old) if n != 1]
    right = [d for d, n in enumerate(new) if n != 1]
    cuts = [(0, 0)]
    a = b = 0
    size_a = size_b = 1
    while a < len(left) or b < len(right):
        if size_a <= size_b and a < len(left):
            size_a *= old[left[a]]
            a += 1
        elif b < len(right):
            size_b *= new[right[b]]
            b += 1
        else:
            break
        if size_a == size_b:
            cuts.append((a, b))
            size_a = size_b = 1
    return [(left[a0:a1], right[b0:b1]) for (a0, b0), (a1, b1) in pairwise(cuts)]


@rule("expand", "expand_as")
def _expand(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    index, rank = step.inputs[0], len(step.shape)
    shape = shape_of(index)
    dims: list[list[Read]] = [[] for _ in range(rank)]
    for d, size in enumerate(shape):
        out = d + rank - len(shape)
        if size == step.shape[out]:
            dims[out] = [Read(index, d)]
    return Deps(dims)


@rule("repeat", "tile")
def _repeat(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    index, rank = step.inputs[0], len(step.shape)
    shape = shape_of(index)
    deps = _expand(step, shape_of)
    for d, size in enumerate(shape):
        if size not in (1, step.shape[d + rank - len(shape)]):
            deps.breaks.append(Break(index, d, "repeats space"))
    return deps


REDUCTIONS = (
    "mean sum amax amin max min var std prod logsumexp any all argmax argmin norm linalg_vector_norm var_mean std_mean "
    "median nanmean nansum topk sort argsort kthvalue"
).split()


@rule(*REDUCTIONS)
def _reduce(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    if "other" in step.args:  # torch.max(a, b)
        return broadcast(step, shape_of)
    index = step.inputs[0]
    rank = len(shape_of(index))
    given = step.args.get("dim")
    if given is None and step.op in ("topk", "sort", "argsort"):
        given = -1
    gone = range(rank) if given is None or given == [] else [d % rank for d in as_list(given, 1)]
    keep = len(step.shape) == rank
    reads = [[Read(index, d)] if d not in gone else [] for d in range(rank)]
    dims = reads if keep else [r for d, r in enumerate(reads) if d not in gone]
    return Deps(dims, [Break(index, d, f"global pooling: {step.op} over space") for d in gone])


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "flip", "roll")
def _along(step: Step, shape_of: Callable[[int], Shape]) -> Deps:
    """Keeps every dimension, and consumes the ones that it works along."""
    deps = same_dims(step, shape_of)
    for d in as_list(step.args.get("dim", step.args.get("dims")), 1):
        deps.breaks.append(Break(step.inputs[0], d % len(step.shape), f"{step.op} over space"))
    return deps
