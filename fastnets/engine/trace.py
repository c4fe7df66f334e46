"""From a module to a Graph: torch.export at concrete shapes, without writes in place."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_map_only

from fastnets.engine.graph import Graph, Node
from fastnets.errors import InputError


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Graph:
    """The graph of `model` on inputs of these shapes.

    Raises:
        InputError: torch.export cannot trace the model; the message has the place in the model's code.
    """
    if any(p.is_inference() and p.requires_grad for p in model.parameters()):
        raise InputError(
            f"optimize: {type(model).__name__} was built under torch.inference_mode(), and torch.export cannot take "
            "its parameters, which require grad: build it outside, or call requires_grad_(False); calls may be inside"
        )
    try:
        with _quiet():
            program = torch.export.export(model, args, kwargs or {}, strict=False)
            if not _can_rename(program):
                program = program.run_decompositions({})  # traces once more: twice the time
    except Exception as error:  # export raises whatever the model's own code raises
        raise InputError(
            f"optimize: torch.export cannot trace {type(model).__name__}: {_reason(error)}. Its control flow must not "
            "depend on the values of tensors: change that place, or optimize the parts around it"
        ) from error
    return _Builder(program).graph()


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch._subclasses.fake_tensor")  # logs a traceback of every error that it raises
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            yield
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of the error, and the deepest line of code outside torch that led to it."""
    lines = str(error).strip().splitlines()
    text = (lines[0] if lines else type(error).__name__).rstrip(".")
    place, frame = "", error.__traceback__
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        if not any(part in file for part in ("/torch/", "/fastnets/engine/")):
            place = f" (at {file}:{frame.tb_lineno})"
        frame = frame.tb_next
    return text + place


def _can_rename(program: torch.export.ExportedProgram) -> bool:
    """Whether every write in place is to a value of its own that no view shares, so that it can become a new value."""
    for node in program.graph.nodes:
        if not _writes(node):
            continue
        written = node.args[0]
        shared = [written, *written.users]
        if _functional(node.target) is None or written.op != "call_function" or any(map(_is_view, shared)):
            return False
    return True


def _writes(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_view(node: torch.fx.Node) -> bool:
    """Whether the result may share memory with an argument, other than by being written to."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return not _writes(node) and (_aliases(node.target) or node.target._opname in ("contiguous", "to", "reshape"))


def _aliases(target: torch._ops.OpOverload) -> bool:
    return any(result.alias_info is not None for result in target._schema.returns)


def _functional(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """relu of relu_: the operation that makes a new value of what `target` writes."""
    packet = getattr(torch.ops.aten, target._opname.removesuffix("_"), None)
    name = target._overloadname
    if not target._opname.endswith("_") or packet is None or name not in packet.overloads():
        return None
    found: torch._ops.OpOverload = getattr(packet, name)
    return found


class _Builder:
    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.nodes: list[Node] = []
        self.values: dict[torch.fx.Node, Any] = {}  # a Node, a constant, or a tuple of them
        self.names: dict[torch.fx.Node, list[torch.fx.Node]] = {}  # those of a tensor that is written in place

    def graph(self) -> Graph:
        signature = self.program.graph_signature
        wanted = {spec.arg.name: spec for spec in signature.input_specs}
        inputs: list[Node] = []
        outputs: list[Any] = []
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                spec = wanted[node.name]
                if spec.kind == InputKind.USER_INPUT:
                    self.values[node] = self._input(node, inputs)
                else:
                    self.values[node] = self._constant(spec)
            elif node.op == "get_attr":
                self.values[node] = getattr(self.program.graph_module, node.target)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            else:
                kinds = [spec.kind for spec in signature.output_specs]
                pairs = zip(kinds, node.args[0], strict=True)
                outputs = [self._value(a) for kind, a in pairs if kind == OutputKind.USER_OUTPUT]
        spec = self.program.call_spec.out_spec
        assert spec is not None
        return Graph(self.nodes, inputs, outputs, spec)

    def _input(self, node: torch.fx.Node, inputs: list[Node]) -> Any:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        made = Node("input", {}, tuple(value.shape), value.dtype, node.name)
        self.nodes.append(made)
        inputs.append(made)
        return made

    def _constant(self, spec: Any) -> Any:
        name = spec.target
        if spec.kind == InputKind.PARAMETER or (spec.kind == InputKind.BUFFER and spec.persistent):
            return self.program.state_dict[name]
        return self.program.constants[name]

    def _value(self, argument: Any) -> Any:
        return self.values[argument] if isinstance(argument, torch.fx.Node) else argument

    def _call(self, node: torch.fx.Node) -> Any:
        arguments = tree_map_only(torch.fx.Node, self._value, (node.args, node.kwargs))
        if node.target is operator.getitem and isinstance(arguments[0][0], tuple):
            return arguments[0][0][arguments[0][1]]
        assert callable(node.target)
        if _is_of_shape(node.target, arguments):
            arguments = tree_map_only(Node, _anything_like, arguments)
        if not _has_nodes(arguments):
            return _evaluate(node.target, arguments)
        if not isinstance(node.target, torch._ops.OpOverload):
            raise InputError(f"optimize: the graph has a step {node.target} that is no ATen operation: {_layer(node)}")
        target = node.target
        if not target._schema.returns:
            return None  # an assertion about shapes, which export has checked
        if target._schema.is_mutable:
            functional = _functional(target)
            assert functional is not None
            target = functional
        schema = target._schema
        given = {a.name: value for a, value in zip(schema.arguments, arguments[0], strict=False)} | arguments[1]
        named = {a.name: given.get(a.name, a.default_value) for a in schema.arguments}
        namespace, _, name = schema.name.partition("::")
        value = node.meta["val"]
        single = isinstance(value, Tensor)
        whole = Node(
            name if namespace == "aten" else schema.name,
            named,
            tuple(value.shape) if single else (),
            value.dtype if single else torch.float32,
            _layer(node),
            target,
            several=not single,
        )
        self.nodes.append(whole)
        if node.target is not target:
            self._rename(node, whole)
        return whole if single else self._parts(whole, value)

    def _rename(self, write: torch.fx.Node, value: Node) -> None:
        """What reads the written tensor from here on, by any of its names, reads the new value."""
        written = write.args[0]
        assert isinstance(written, torch.fx.Node)
        names = self.names.setdefault(written, [written])
        names.append(write)
        self.names[write] = names
        for name in names:
            self.values[name] = value

    def _parts(self, whole: Node, values: Any) -> tuple[Any, ...]:
        """A node for each tensor of a result that is several; unused ones are dropped later."""
        parts: list[Any] = []
        for index, value in enumerate(values):
            if not isinstance(value, Tensor):
                parts.append(value)
                continue
            arguments = {"self": whole, "index": index}
            parts.append(Node("getitem", arguments, tuple(value.shape), value.dtype, whole.layer, operator.getitem))
            self.nodes.append(parts[-1])
        return tuple(parts)


# Their results are constants: of the values that they read, only shape and dtype count.
_OF_SHAPE = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"}
AS_OTHER = {"expand_as", "view_as", "reshape_as"}  # so are theirs, where the first value is one


def _is_of_shape(target: Any, arguments: Any) -> bool:
    name = target._opname if isinstance(target, torch._ops.OpOverload) else ""
    return name in _OF_SHAPE or (name in AS_OTHER and not isinstance(arguments[0][0], Node))


def _anything_like(node: Node) -> Tensor:
    return torch.empty(node.shape, dtype=node.dtype)


def _has_nodes(arguments: Any) -> bool:
    found: list[Node] = []
    tree_map_only(Node, found.append, arguments)
    return bool(found)


def _evaluate(target: Any, arguments: Any) -> Any:
    """What only constants go into is a constant."""
    with torch.no_grad():
        result = target(*arguments[0], **arguments[1])
    return tuple(result) if isinstance(result, list) else result


def _layer(node: torch.fx.Node) -> str:
    """The dotted name of the module whose forward made this node, with its class."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return node.name
    path, kind = stack[-1][:2]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"{path or 'forward'} ({kind.rsplit('.', 1)[-1]})"
