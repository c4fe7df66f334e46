"""Products of matrices that are both values of a network."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor

from fastnets.engine.graph import Node, Shape
from fastnets.engine.kernels import Kernel
from fastnets.ops.layout import together
from fastnets.ops.matmul import MatmulCall, run_matmul, takes_flipped


@dataclass(eq=False)
class Matmul(Kernel):
    """a b of two inputs, or of an input and a constant; see fastnets.ops.matmul.

    Args:
        batch: that both are repeated to, at most three axes.
        constant: in place of an input: of the first where `constant_first`.
    """

    name: ClassVar[str] = "matmul"

    batch: Shape
    constant: Tensor | None = None
    constant_first: bool = False

    @property
    def constants(self) -> list[Tensor]:
        return [] if self.constant is None else [self.constant]

    def factors(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        a, b = [*self.constants, *inputs] if self.constant_first else [*inputs, *self.constants]
        return a, b

    def emit(self, inputs: list[Tensor], out: Tensor) -> None:
        a, b = (self._with_batch(t) for t in self.factors(inputs))
        flipped = takes_flipped(a, b)
        assert flipped or (together(a, -1) and (together(b, -1) or together(b, -2)))  # layout.py saw to it,
        assert together(out, -2 if flipped else -1)  # and to that
        run_matmul(MatmulCall(a, b, self._with_batch(out)))

    def _with_batch(self, x: Tensor) -> Tensor:
        x = x[(None,) * (len(self.batch) + 2 - x.dim())]
        return x.expand(*self.batch, *x.shape[-2:])

    def flops(self, node: Node) -> int:
        return 2 * prod(node.shape) * node.inputs[0].shape[-2 if self.constant_first else -1]
