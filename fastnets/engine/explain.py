"""What a plan does, step by step: kernels, their share of the time, and how near they come to the machine's peak."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fastnets import _C
from fastnets.engine.gpu_plan import GpuPlan
from fastnets.engine.graph import Node
from fastnets.engine.kernels import Concat, Torch, View, Written
from fastnets.engine.plan import Plan


@dataclass(frozen=True)
class Row:
    """One step.

    Args:
        kernel: what computes it, and what its epilogue takes along: "conv winograd 6x6 + scale + relu".
        why: why no kernel of ours runs it, where torch does; on a GPU, why that kernel: "dense, C=256".
        mflop: of the direct algorithm.
        share: of the plan's time.
        gflops: mflop by time; of_peak: by the machine's measured peak, of multiply-adds of the plan's dtype (on a CPU
            by its fastest instruction for them, on a GPU by products); above 1 where fewer multiplications do.
        arena_mb: where in the arena the result lies: its end; on a GPU, which has none, what the result takes.
    """

    step: int
    layer: str
    kernel: str
    why: str
    shape: tuple[int, ...]
    mflop: float
    ms: float
    share: float
    gflops: float
    of_peak: float
    arena_mb: float


@dataclass(frozen=True)
class Explanation:
    """All steps of a plan that compute, in order; print it, or take `json()`.

    machine: "4 threads", or the name of the GPU and how its steps are launched.
    """

    rows: tuple[Row, ...]
    total_ms: float
    peak_gflops: float
    arena_mb: float
    peak_mb: float
    threads: int
    machine: str

    @property
    def torch_share(self) -> float:
        """The share of the time that steps of torch take."""
        return sum(row.share for row in self.rows if row.kernel.startswith("torch"))

    def document(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists."""
        return asdict(self)

    def json(self) -> str:
        """The same as a JSON document."""
        return json.dumps(self.document(), indent=2)

    def __str__(self) -> str:
        head = ("step", "layer", "kernel", "shape", "MFLOP", "ms", "share", "GF/s", "of peak", "arena MB")
        table = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in table) for column in range(len(head))]
        left = {"layer", "kernel", "shape"}
        lines = []
        for line in table:
            pairs = zip(head, line, widths, strict=True)
            lines.append("  ".join(c.ljust(w) if name in left else c.rjust(w) for name, c, w in pairs).rstrip())
        lines.append(
            f"{self.total_ms:.2f} ms on {self.machine}; peak {self.peak_gflops:.0f} GF/s; arena "
            f"{self.arena_mb:.1f} MB, at most {self.peak_mb:.1f} MB in all; torch steps {self.torch_share:.0%}"
        )
        return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    kernel = f"{row.kernel}: {row.why}" if row.why else row.kernel
    shape = "x".join(map(str, row.shape))
    rates = (f"{row.gflops:.0f}", f"{row.of_peak:.2f}") if row.mflop else ("", "")
    numbers = (f"{row.mflop:.1f}" if row.mflop else "", f"{row.ms:.3f}", f"{row.share:.1%}", *rates)
    return (str(row.step), row.layer, kernel, shape, *numbers, f"{row.arena_mb:.1f}")


def explain(plan: Plan | GpuPlan, inputs: Sequence[Tensor], *, runs: int = 10) -> Explanation:
    """Run a plan `runs` times and say where its time goes."""
    seconds = plan.profile(inputs, runs)
    total = sum(seconds.values()) or 1e-12
    if isinstance(plan, GpuPlan):
        peak, bytes_, nthreads, machine = plan.peak_flops() / 1e9, plan.value_bytes, 0, plan.machine
    else:
        bf16 = any(layout.dtype == torch.bfloat16 for layout in plan.layouts.values())
        peak = max(_C.peak_flops(plan.nthreads, bf16) for _ in range(5)) / 1e9
        bytes_, nthreads, machine = plan.storage.bytes, plan.nthreads, f"{plan.nthreads} threads"
    rows: list[Row] = []
    for node in plan.graph.nodes:
        if node.op == "input" or isinstance(node.kernel, View | Concat | Written):
            continue
        time, flops = seconds.get(node, 0.0), node.kernel.flops(node)
        rate = flops / time / 1e9 if time else 0.0
        kernel, why, end = _of_gpu(plan, node) if isinstance(plan, GpuPlan) else _of_cpu(plan, node)
        rows.append(
            Row(
                step=len(rows),
                layer=node.layer,
                kernel=kernel,
                why=why,
                shape=node.shape,
                mflop=flops / 1e6,
                ms=time * 1e3,
                share=time / total,
                gflops=rate,
                of_peak=rate / peak,
                arena_mb=end / 1e6,
            )
        )
    return Explanation(tuple(rows), total * 1e3, peak, bytes_ / 1e6, plan.peak_bytes / 1e6, nthreads, machine)


def _of_cpu(plan: Plan, node: Node) -> tuple[str, str, int]:
    """Kernel, why, and where in the arena the result ends."""
    end = 0 if node.several else plan.storage.buffer_of[node].offset + plan.storage.buffer_of[node].bytes
    return _kernel(node), node.kernel.reason if isinstance(node.kernel, Torch) else "", end


def _of_gpu(plan: GpuPlan, node: Node) -> tuple[str, str, int]:
    """Kernel, why, and the bytes of the result."""
    step = plan.steps[node]
    size = 0 if node.several else plan.storage.buffer_of[node].bytes
    return " + ".join([step.kernel, *_epilogue(node)]), step.why, size


def _kernel(node: Node) -> str:
    """The kernel's name, how it runs, and what its epilogue does."""
    if isinstance(node.kernel, Torch):
        return f"torch {node.op}"
    return " + ".join([f"{node.kernel.name} {node.kernel.choice()}".strip(), *_epilogue(node)])


def _epilogue(node: Node) -> list[str]:
    terms = node.kernel.terms
    more = [
        "scale" if terms.scale is not None else "",
        "residual" if terms.residual else "",
        terms.activation.name if terms.activation.name != "none" else "",
        "maxima" if getattr(node.kernel, "maxima", None) else "",
    ]
    return list(filter(None, more))
