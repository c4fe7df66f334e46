"""Inputs of separable."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from harness import limit_of_sums

from fastnets.ops.conv_arguments import Padding, window_of
from fastnets.ops.epilogue import activation_of
from fastnets.ops.separable import OP as OP
from fastnets.ops.separable import SeparableCall


@dataclass(frozen=True)
class Case:
    """`multiplier` depthwise results a channel; `middle` says that they have a scale and a shift."""

    batch: int
    cin: int
    cout: int
    size: tuple[int, ...]
    kernel: tuple[int, ...] = (3, 3)
    stride: int | tuple[int, ...] = 1
    padding: Padding = 1
    dilation: int | tuple[int, ...] = 1
    multiplier: int = 1
    middle: bool = False
    middle_activation: str = "none"
    residual: bool = False
    activation: str = "none"
    block: int | None = None
    strassen: bool | None = None

    @property
    def name(self) -> str:
        sizes = ["x".join(map(str, size)) for size in (self.size, self.kernel)]
        parts = [f"n{self.batch}", f"{self.cin}to{self.cout}", sizes[0], f"k{sizes[1]}"]
        for letter, value in (("s", self.stride), ("p", self.padding), ("d", self.dilation), ("m", self.multiplier)):
            if value != 1:
                parts.append(letter + str(value).replace(", ", ",").strip("()"))
        parts += [self.middle_activation + "-between"] if self.middle_activation != "none" else []
        parts += ["middle"] if self.middle else []
        parts += ["residual"] if self.residual else []
        parts += [self.activation] if self.activation != "none" else []
        parts += ["strassen"] if self.strassen else []
        return "-".join(parts + ([f"b{self.block}"] if self.block else []))


def make(case: Case, seed: int = 0) -> SeparableCall:
    """Normal values, weights scaled as networks are initialised."""
    random = torch.Generator().manual_seed(seed)
    middle, axes = case.cin * case.multiplier, len(case.size)
    depthwise = torch.randn(middle, 1, *case.kernel, generator=random)
    call = SeparableCall(
        x=torch.randn(case.batch, case.cin, *case.size, generator=random),
        depthwise=depthwise / depthwise[0].numel() ** 0.5,
        pointwise=torch.randn(case.cout, middle, *(1,) * axes, generator=random) / middle**0.5,
        bias=torch.randn(case.cout, generator=random),
        middle_scale=torch.rand(middle, generator=random) if case.middle else None,
        middle_bias=torch.randn(middle, generator=random) if case.middle else None,
        residual=None,
        window=window_of(axes, case.stride, case.padding, case.dilation),
        middle_activation=activation_of("separable", case.middle_activation),
        activation=activation_of("separable", case.activation),
        block=case.block,
        strassen=case.strassen,
    )
    residual = torch.randn(call.out_shape, generator=random)
    return replace(call, residual=residual) if case.residual else call


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return limit_of_sums(OP, make, case, 1e-5)


CASES = [
    *(Case(2, c, 24, (13, 17), middle=True, middle_activation="relu6", activation="relu6") for c in (1, 3, 21, 24)),
    *(Case(1, 21, c, (13, 17), residual=True) for c in (1, 3, 21, 33, 728)),
    Case(1, 728, 728, (9, 10), activation="relu"),
    Case(1, 40, 72, (15, 14), stride=2, middle=True, middle_activation="silu", activation="silu"),
    Case(1, 40, 72, (15, 14), (5, 5), padding=2, middle_activation="hardswish"),
    Case(2, 40, 20, (15, 14), (5, 5), stride=2, padding=((1, 2), (0, 2)), residual=True, activation="leaky"),
    Case(1, 24, 40, (21, 23), padding=3, dilation=3, activation="relu"),
    Case(1, 24, 40, (30, 33), padding=2, dilation=2, stride=(2, 1)),
    Case(1, 16, 24, (7, 9), padding=10, dilation=10),  # dilation larger than the image
    Case(1, 20, 33, (20, 21), (7, 4), padding=((3, 3), (1, 2)), middle=True),
    Case(1, 7, 20, (11, 13), multiplier=3, middle_activation="relu"),
    Case(2, 21, 24, (5, 7, 9), (3, 3, 3), middle=True, middle_activation="relu", residual=True, activation="relu"),
    Case(1, 32, 16, (8, 7, 9), (3, 3, 3), padding=2, dilation=2),
    Case(1, 32, 16, (8, 7, 9), (3, 3, 3), stride=2),
    Case(1, 19, 18, (50,), (3,)),
    # one tap: a scale and a shift of each pixel
    *(Case(2, c, 40, (9, 11), (1, 1), padding=0, middle=True, middle_activation="relu") for c in (1, 21, 48, 70)),
    Case(1, 33, 64, (20, 21), (1, 1), padding=0, middle_activation="silu", residual=True, strassen=True),
    Case(1, 20, 18, (4, 5, 6), (1, 1, 1), padding=0, activation="relu"),
    Case(1, 512, 512, (7, 7), activation="relu"),  # few pixels: threads split the output channels
    Case(1, 1024, 300, (1, 1)),
    *(Case(1, 32, 50, (19, 18), block=block) for block in (1, 17, 40, 1000)),
    Case(1, 32, 64, (80, 90), activation="relu"),
    Case(1, 728, 150, (7, 9), middle_activation="relu", activation="relu", block=40, strassen=True),
    Case(2, 44, 64, (13, 10), residual=True, activation="silu", block=1, strassen=True),
    Case(1, 40, 133, (5, 6, 7), (3, 3, 3), middle=True, residual=True, strassen=True),
    Case(1, 64, 128, (1, 1), strassen=True),
    Case(0, 16, 8, (9, 9)),
]
