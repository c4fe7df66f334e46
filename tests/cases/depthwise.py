"""Inputs of depthwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from cases.conv import Case as ConvCase
from cases.conv import make as make_conv

from fastnets.ops.conv_arguments import ConvCall, Padding
from fastnets.ops.conv_config import ConvConfig
from fastnets.ops.depthwise import OP as OP


@dataclass(frozen=True)
class Case:
    """`multiplier` outputs a channel; the others as the caller gives them."""

    batch: int
    channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: Padding = 0
    dilation: int | tuple[int, ...] = 1
    multiplier: int = 1
    residual: bool = False
    activation: str = "none"
    stream: bool = False

    @property
    def conv(self) -> ConvCase:
        """The same as a case of conv."""
        names = ("batch", "size", "kernel", "stride", "padding", "dilation", "residual", "activation")
        same: dict[str, Any] = {name: getattr(self, name) for name in names}
        config = ConvConfig("depthwise", stream=True) if self.stream else None
        channels = self.channels
        return ConvCase(cin=channels, cout=channels * self.multiplier, groups=channels, config=config, **same)

    @property
    def name(self) -> str:
        return self.conv.name


def make(case: Case, seed: int = 0) -> ConvCall:
    return make_conv(case.conv, seed)


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-5


CHANNELS = (1, 3, 21, 24, 728)

CASES = [
    *(Case(2, c, (13, 17), (3, 3), padding=1, activation="relu6") for c in CHANNELS),
    *(Case(1, c, (14, 15), (3, 3), stride=2, padding=1) for c in CHANNELS),
    *(Case(1, c, (19, 11), (5, 5), padding=2, residual=True) for c in CHANNELS),
    *(Case(1, c, (5, 7, 9), (3, 3, 3), padding=1, activation="silu") for c in CHANNELS),
    *(Case(1, c, (9, 8, 7), (3, 3, 3), stride=2, padding=1) for c in (1, 21, 24)),
    *(Case(1, c, (12, 13, 30), (3, 3, 3), padding=d, dilation=d) for c in (3, 21, 32) for d in (2, 3, 5)),
    Case(2, 40, (33, 70), (3, 3), padding=16, dilation=16, activation="relu", residual=True),
    Case(1, 16, (7, 9), (3, 3), padding=10, dilation=10),  # dilation larger than the image
    Case(1, 9, (3, 4, 5), (3, 3, 3), padding=7, dilation=7),
    # strides and dilations with and without a common divisor
    *(Case(1, 20, (31, 37), (3, 3), stride=s, dilation=d, padding=3) for s, d in ((2, 2), (2, 3), (4, 2), (3, 1))),
    Case(1, 20, (29, 35), (5, 5), stride=2, padding=(1, 2)),
    Case(1, 24, (31, 33), (5, 5), stride=(1, 2), padding=4, dilation=(2, 1), activation="gelu"),
    # other kernels
    Case(1, 33, (20, 21), (7, 7), padding=3),
    Case(1, 33, (20, 21), (4, 2), padding=((2, 1), (0, 1))),
    Case(2, 18, (20, 21), (3, 1), padding=(1, 0)),
    Case(2, 18, (20, 21), (1, 5), padding=(0, 2)),
    Case(2, 18, (50,), (3,), padding=((0, 2),), dilation=2),
    Case(1, 18, (6, 8, 10), (1, 3, 3), padding=(0, 1, 1)),
    Case(1, 18, (6, 8, 10), (3, 3, 1), padding=(1, 1, 0), stride=(2, 1, 1)),
    Case(1, 17, (6, 8, 10), (5, 4, 7), padding=(2, 2, 3)),
    Case(1, 5, (6, 6), (6, 6)),
    Case(1, 48, (1, 1), (3, 3), padding=1),
    Case(1, 19, (9, 9), (1, 1), stride=2),
    # several outputs a channel
    *(Case(1, c, (11, 13), (3, 3), padding=1, multiplier=m) for c in (1, 3, 21) for m in (2, 3, 32)),
    Case(2, 7, (5, 6, 7), (3, 3, 3), padding=2, dilation=2, multiplier=5, residual=True, activation="relu"),
    # enough for several blocks of rows, threads and chunks of channels
    Case(1, 32, (70, 65), (3, 3), padding=1),
    Case(1, 960, (7, 7), (5, 5), padding=2, activation="hardswish"),
    Case(1, 256, (40, 300), (3, 3), stride=2, padding=((0, 1), (0, 1))),
    Case(1, 32, (23, 22), (3, 3), padding=1, stream=True, activation="relu"),
    Case(1, 8, (20, 21, 22), (3, 3, 3), padding=4, dilation=4),
    # nothing to do
    Case(0, 16, (9, 9), (3, 3), padding=1),
]
