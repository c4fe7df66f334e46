"""optimize(): a module that runs a network on the kernels."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from fastnets.engine import rules_conv, rules_pointwise, rules_window  # noqa: F401  they register the rules
from fastnets.engine.explain import Explanation, explain
from fastnets.engine.fuse import fuse
from fastnets.engine.gpu_plan import DTYPES as GPU_DTYPES
from fastnets.engine.gpu_plan import GpuPlan
from fastnets.engine.gpu_steps import refusal as gpu_refusal
from fastnets.engine.gpu_steps_conv import WIDEST_PAIR
from fastnets.engine.graph import Graph
from fastnets.engine.lower import Context, lower
from fastnets.engine.maxima import pool_in_producers
from fastnets.engine.moments import share_moments
from fastnets.engine.plan import Plan, make_plan
from fastnets.engine.precision import DTYPES, cast_by_kernels, in_bfloat16, in_float32
from fastnets.engine.quotients import sum_directly
from fastnets.engine.saved import Graphs, load, save
from fastnets.engine.trace import trace
from fastnets.engine.upsampling import join_upsampling
from fastnets.errors import InputError
from fastnets.ops.gpu import interpreted, tensor_refusal
from fastnets.ops.layout import threads

PLANS = 8
"""Input shapes whose plans are kept; the one not used for longest goes first."""

Dtype = Literal["fp32", "bf16", "fp16"]
Key = tuple[Any, ...]
_version = attrgetter("_version")


def _counted(model: nn.Module | None) -> list[Tensor]:
    """The weights by which a change is noticed, if torch counts it: one a layer, as each call looks at them all."""
    if model is None:
        return []
    counted = [t for t in (*model.parameters(), *model.buffers()) if not t.is_inference()]
    return [t for t in counted if t.dim() > 1] or counted


def _plain_key(args: tuple[Any, ...]) -> Key | None:
    """What a plan depends on, where the inputs are just tensors."""
    if any(type(arg) is not Tensor for arg in args):
        return None
    return (threads(), *((arg.shape, arg.dtype) for arg in args))


def home_of(model: nn.Module | None, inputs: Any = ()) -> torch.device:
    """The device of the model's first weight, or else of the first input."""
    weights = [] if model is None else [*model.parameters(), *model.buffers()]
    tensors = [value for value in (*weights, *tree_leaves(inputs)) if isinstance(value, Tensor)]
    return tensors[0].device if tensors else torch.device("cpu")


def _checked(asked: torch.device) -> torch.device:
    """Where a network that shall run on `asked` runs: with TRITON_INTERPRET=1, one for a GPU runs on the CPU.

    Raises:
        InputError: it is no CPU and no GPU that the kernels know, or there is none.
    """
    if asked.type not in ("cpu", "cuda"):
        raise InputError(f"optimize: device is {str(asked)!r}: pass 'cpu' or 'cuda'")
    if asked.type == "cpu" or interpreted():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"optimize: device is {str(asked)!r}, and torch finds no GPU: pass device='cpu'")
    found = torch.device("cuda", torch.cuda.current_device() if asked.index is None else asked.index)
    reason = tensor_refusal(torch.empty(0, device=found))
    if reason is not None:
        raise InputError(f"optimize: device is {str(asked)!r}: {reason}")
    return found


def optimize(
    model: nn.Module,
    example_inputs: Any,
    *,
    dtype: Dtype = "fp32",
    device: str | torch.device | None = None,
    cuda_graph: bool = True,
    strict: bool = False,
) -> Optimized:
    """`model` on fused kernels, with the same inputs and outputs to float rounding.

    Args:
        model: in eval mode; anything that torch.export accepts. Operations without a kernel run in torch.
        example_inputs: a tensor, or a tuple of the positional arguments; its shapes get their plan now, and other
            shapes when they come.
        dtype: of the values between the kernels, which sum in float32. "bf16" halves the memory, is faster
            where the processor multiplies bfloat16, and has errors of the order of 1e-2. "fp16": on a GPU only.
            It does not follow the model's: one of 16 bits, such as `model.bfloat16()`, runs in "fp32" too, more exactly
            than torch runs it, and its outputs keep their dtype.
        device: where it runs: "cpu", or "cuda", "cuda:1" for NVIDIA GPUs of compute capability 8.0 on (with Triton).
            None: where the model, or else the first input is. Outputs are there; inputs may be anywhere.
        cuda_graph: capture the steps of each input shape at its first call, and launch them as one from then on.
            Each shape keeps its memory; see release().
        strict: raise InputError for inputs that need gradients, instead of running `model` on them.

    Raises:
        InputError: the model is in training mode, or torch.export cannot trace it.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"optimize: model is {type(model).__name__}: pass a torch.nn.Module")
    if model.training:
        raise InputError("optimize: model is in training mode: call model.eval() first")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    where = device or home_of(model, inputs)
    optimized = Optimized(model, dtype=dtype, device=where, cuda_graph=cuda_graph, strict=strict)
    optimized.plan_for(*inputs)
    return optimized


class Optimized(nn.Module):
    """What optimize() returns: the network in eval mode.

    The original module is `original`. After a change of its weights call refresh(); a change in place of a weight with
    more than one axis, such as training makes, is noticed at the next call.
    """

    def __init__(
        self,
        original: nn.Module | None,
        *,
        dtype: Dtype = "fp32",
        device: str | torch.device | None = None,
        cuda_graph: bool = True,
        strict: bool = False,
    ) -> None:
        super().__init__()
        asked = torch.device(device or home_of(original))
        self.on_gpu = asked.type == "cuda"
        dtypes = GPU_DTYPES if self.on_gpu else DTYPES
        if dtype not in dtypes:
            raise InputError(f"optimize: dtype is {dtype!r} on {asked}: pass one of {', '.join(dtypes)}")
        self.dtype = dtype
        self.device = _checked(asked)
        self.cuda_graph = cuda_graph
        self.original = original
        self._graphs: Graphs = {}  # traced, for save()
        self.strict = strict
        self._context = self._new_context()
        self._plans: OrderedDict[Key, Plan | GpuPlan] = OrderedDict()
        self._weights = _counted(original)
        self._versions = self._weight_versions()
        self._last: tuple[Key | None, Any] = (None, None)  # inputs as of _plain_key(), and their plan
        self._lock = threading.RLock()
        self._warned = False
        super().train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's outputs."""
        if torch.is_grad_enabled() and self._needs_grad(args, kwargs):
            return self._with_gradients(*args, **kwargs)
        key, plan = self._last
        if kwargs or key is None or key != _plain_key(args) or self._versions != self._weight_versions():
            plan = self.plan_for(*args, **kwargs)
            args = tuple(leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor))
        outputs = plan.run(args)
        spec = plan.graph.out_spec
        return outputs[0] if spec.is_leaf() else tree_unflatten(outputs, spec)

    def plan_for(self, *args: Any, **kwargs: Any) -> Plan | GpuPlan:
        """The plan of inputs of these shapes, made if there is none."""
        leaves, spec = tree_flatten((args, kwargs))
        kinds = tuple((tuple(v.shape), v.dtype) if isinstance(v, Tensor) else v for v in leaves)
        key = (kinds, spec, threads())
        with self._lock:
            if self._versions != self._weight_versions():
                self.refresh()
            if key not in self._plans:
                self._plans[key] = self._make(kinds, spec, args, kwargs)
                while len(self._plans) > PLANS:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(key)
            self._last = None if kwargs else _plain_key(args), self._plans[key]
            return self._plans[key]

    def save(self, path: Path | str) -> None:
        """Write the network with the shapes that it has plans for; load() reads it without tracing a model.

        The file is a safetensors file; there is no code in it.
        """
        with self._lock:
            save(self._graphs, Path(path))

    @classmethod
    def load(
        cls,
        path: Path | str,
        model: nn.Module | None = None,
        *,
        dtype: Dtype = "fp32",
        device: str | torch.device | None = None,
    ) -> Optimized:
        """The network that save() wrote; `model`, if given, serves other shapes and gradients.

        Raises:
            InputError: the file is not one of save().
        """
        loaded = cls(model, dtype=dtype, device=device)
        loaded._graphs = load(Path(path))
        return loaded

    def release(self) -> None:
        """Free the plans and the packed weights; the next call makes them anew, without tracing."""
        with self._lock:
            self._context = self._new_context()
            self._plans.clear()
            self._last = None, None

    def refresh(self) -> None:
        """Take over the weights that the original module has now."""
        with self._lock:
            self.release()
            if self.original is not None:
                self._graphs.clear()
            self._weights = _counted(self.original)
            self._versions = self._weight_versions()

    def explain(self, *args: Any, runs: int = 10, **kwargs: Any) -> Explanation:
        """Where the time of these inputs goes, step by step; without inputs: the last plan's shapes, on noise."""
        if args or kwargs or not self._plans:
            plan = self.plan_for(*args, **kwargs)
            inputs = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        else:
            plan = next(reversed(self._plans.values()))
            inputs = [torch.randn(node.shape).to(node.dtype) for node in plan.graph.inputs]
        return explain(plan, inputs, runs=runs)

    def peak_memory(self, *shapes: tuple[int, ...]) -> int:
        """Bytes that one run on inputs of `shapes` takes beside the weights; of the dtypes that it has run on, or else
        those of the weights."""
        known = next((kinds for kinds, _ in reversed(self._graphs)), ())
        dtypes = [kind[1] for kind in known if isinstance(kind, tuple)]
        if len(dtypes) != len(shapes):
            weights = (w.dtype for w in self._weights if w.is_floating_point())
            dtypes = [next(weights, torch.float32)] * len(shapes)
        return self.plan_for(*(torch.empty(s, dtype=d) for s, d in zip(shapes, dtypes, strict=True))).peak_bytes

    def train(self, mode: bool = True) -> Optimized:
        """Raises InputError for mode True: an optimized network is for inference."""
        if mode:
            raise InputError("optimize: an optimized module cannot be trained: train .original, then call refresh()")
        return self

    def _new_context(self) -> Context:
        return Context(dtypes=tuple(GPU_DTYPES.values()), refusal=gpu_refusal) if self.on_gpu else Context()

    def _make(self, kinds: Key, spec: TreeSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan | GpuPlan:
        for leaf in tree_flatten((args, kwargs))[0]:
            if isinstance(leaf, Tensor) and leaf.device.type != "cpu" and not self.on_gpu:
                raise InputError(
                    f"optimize: an input is on {leaf.device}: pass tensors on the CPU, or optimize(..., device='cuda')"
                )
        with torch.inference_mode(False), torch.no_grad():
            if (kinds, spec) not in self._graphs:
                self._graphs[kinds, spec] = self._trace(args, kwargs)
            graph = self._graphs[kinds, spec].copy()
            lower(graph, self._context)
            if self.on_gpu:
                fuse(graph, None, widest_pair=WIDEST_PAIR)
                return GpuPlan(graph, self.device, GPU_DTYPES[self.dtype], captured=self.cuda_graph)
            fuse(graph, threads())
            sum_directly(graph)
            join_upsampling(graph, threads(), 2 if self.dtype == "bf16" else 4)
            if self.dtype == "bf16":
                in_bfloat16(graph)
            else:
                share_moments(graph)
            cast_by_kernels(graph)
            pool_in_producers(graph)
            return make_plan(graph, threads())

    def _weight_versions(self) -> int:
        """Grows with every write in place that torch counts."""
        return sum(map(_version, self._weights))

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        if self.original is None:
            known = ", ".join(
                str([list(kind[0]) for kind in kinds if isinstance(kind, tuple)]) for kinds, _ in self._graphs
            )
            raise InputError(
                f"optimize: this network was loaded without its model and has plans for inputs of shapes {known} only: "
                "pass one of these, or Optimized.load(path, model=...)"
            )
        home = home_of(self.original)
        args, kwargs = tree_map_only(Tensor, lambda value: value.to(home), (args, kwargs))
        graph = trace(self.original, args, kwargs)
        if not self.on_gpu:
            in_float32(graph)
        return graph

    def _needs_grad(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_flatten((args, kwargs))[0])

    def _with_gradients(self, *args: Any, **kwargs: Any) -> Any:
        if self.strict or self.original is None:
            raise InputError("optimize: an input requires gradients: call under torch.no_grad(), or use .original")
        if not self._warned:
            self._warned = True
            warnings.warn("fastnets: an input requires gradients, so the original module runs", stacklevel=3)
        assert self.original is not None
        return self.original(*args, **kwargs)
