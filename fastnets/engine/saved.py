"""Optimized networks as files: the traced graphs as JSON in the metadata of a safetensors file of the constants.

Nothing in such a file is code: operations are names in torch.ops.aten, and loading lowers and packs them again.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._pytree import treespec_dumps, treespec_loads

from fastnets.engine.graph import Graph, Node
from fastnets.errors import InputError
from fastnets.io.atomic import atomic_path

VERSION = 1
Graphs = dict[tuple[Any, ...], Graph]
"""Traced graphs by (kinds of the inputs, their tree)."""


def save(graphs: Graphs, path: Path) -> None:
    """Write the graphs; the file appears when it is complete."""
    tensors: list[Tensor] = []
    plans = []
    for (kinds, spec), graph in graphs.items():
        plan = _Writer(tensors, graph).plan()
        plans.append({"kinds": [_kind(kind) for kind in kinds], "spec": treespec_dumps(spec), **plan})
    document = json.dumps({"version": VERSION, "plans": plans})
    # Copies, because safetensors refuses tensors that share memory.
    named = {str(index): tensor.detach().clone().contiguous() for index, tensor in enumerate(tensors)}
    with atomic_path(path) as partial:
        save_file(named, partial, {"fastnets": document})


def load(path: Path) -> Graphs:
    """What `save` wrote.

    Raises:
        InputError: the file is missing, no such file, or of another version.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("fastnets", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        document = json.loads(text)
        if document["version"] != VERSION:
            raise InputError(f"{path}: was saved by another version of fastnets: optimize the model again and save it")
        return {
            (tuple(map(_unkind, plan["kinds"])), treespec_loads(plan["spec"])): _read(plan, tensors)
            for plan in document["plans"]
        }
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as a saved network: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: holds no network that Optimized.save() wrote: {error!r}") from error


def _kind(kind: Any) -> Any:
    return {"shape": list(kind[0]), "dtype": _name(kind[1])} if isinstance(kind, tuple) else kind


def _unkind(kind: Any) -> Any:
    return (tuple(kind["shape"]), getattr(torch, kind["dtype"])) if isinstance(kind, dict) else kind


def _name(value: Any) -> str:
    """Of a torch constant: float32, channels_last, strided."""
    return str(value).removeprefix("torch.")


class _Writer:
    def __init__(self, tensors: list[Tensor], graph: Graph) -> None:
        self.tensors, self.graph = tensors, graph
        self.index = {id(tensor): position for position, tensor in enumerate(tensors)}
        self.place = {node: position for position, node in enumerate(graph.nodes)}

    def plan(self) -> dict[str, Any]:
        nodes = [
            {
                "op": node.op,
                "target": _target_name(node.target),
                "args": {name: self._value(value) for name, value in node.args.items()},
                "shape": list(node.shape),
                "dtype": _name(node.dtype),
                "layer": node.layer,
                "several": node.several,
            }
            for node in self.graph.nodes
        ]
        inputs = [self.place[node] for node in self.graph.inputs]
        outputs = [self._value(value) for value in self.graph.outputs]
        return {"nodes": nodes, "inputs": inputs, "outputs": outputs, "out_spec": treespec_dumps(self.graph.out_spec)}

    def _value(self, value: Any) -> Any:
        if isinstance(value, Node):
            return {"node": self.place[value]}
        if isinstance(value, Tensor):
            if id(value) not in self.index:
                self.index[id(value)] = len(self.tensors)
                self.tensors.append(value)
            return {"tensor": self.index[id(value)]}
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return {"torch": _name(value)}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise InputError(f"optimize: an argument of type {type(value).__name__} cannot be saved")


def _target_name(target: Callable[..., Any] | None) -> str:
    return "" if target is None else "getitem" if target is operator.getitem else str(target)


def _target(name: str) -> Callable[..., Any] | None:
    if name in ("", "getitem"):
        return operator.getitem if name else None
    namespace, op, overload = name.split(".")
    if namespace not in ("aten", "fastnets"):
        raise ValueError(f"operation {name}")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), op), overload)
    return found


def _read(plan: dict[str, Any], tensors: dict[str, Tensor]) -> Graph:
    nodes: list[Node] = []

    def value(item: Any) -> Any:
        if isinstance(item, list):
            return [value(part) for part in item]
        if not isinstance(item, dict):
            return item
        ((kind, content),) = item.items()
        if kind == "node":
            return nodes[content]
        if kind == "tensor":
            return tensors[str(content)]
        if kind == "torch":
            return getattr(torch, content)
        return torch.device(content) if kind == "device" else float(content)

    for entry in plan["nodes"]:
        nodes.append(
            Node(
                entry["op"],
                {name: value(item) for name, item in entry["args"].items()},
                tuple(entry["shape"]),
                getattr(torch, entry["dtype"]),
                entry["layer"],
                _target(entry["target"]),
                several=entry["several"],
            )
        )
    outputs = [value(item) for item in plan["outputs"]]
    return Graph(nodes, [nodes[i] for i in plan["inputs"]], outputs, treespec_loads(plan["out_spec"]))
