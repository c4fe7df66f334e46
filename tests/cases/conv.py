"""Inputs of conv."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from harness import limit_of_sums

from fastnets.ops.conv import OP as OP
from fastnets.ops.conv import ConvCall
from fastnets.ops.conv_arguments import Padding, window_of
from fastnets.ops.conv_config import ConvConfig
from fastnets.ops.epilogue import activation_of


@dataclass(frozen=True)
class Case:
    """`kernel`, `stride` and the like as the caller gives them; `config` None leaves the choice to the op."""

    batch: int
    cin: int
    cout: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: Padding = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    bias: bool = True
    residual: bool = False
    activation: str = "none"
    config: ConvConfig | None = None

    @property
    def name(self) -> str:
        sizes = ["x".join(map(str, size)) for size in (self.size, self.kernel)]
        parts = [f"n{self.batch}", f"{self.cin}to{self.cout}", sizes[0], f"k{sizes[1]}"]
        for letter, value, plain in (("s", self.stride, 1), ("p", self.padding, 0), ("d", self.dilation, 1)):
            if value != plain:
                parts.append(letter + str(value).replace(", ", ",").strip("()"))
        parts += [f"g{self.groups}"] if self.groups > 1 else []
        parts += [] if self.bias else ["plain"]
        parts += ["residual"] if self.residual else []
        parts += [self.activation] if self.activation != "none" else []
        if self.config is not None:
            tile = "".join(map(str, self.config.tile)) if self.config.algorithm == "winograd" else ""
            flags = "".join(flag for flag in ("share", "stream", "taps") if getattr(self.config, flag))
            parts.append(f"{self.config.algorithm}{tile}b{self.config.block}{flags}")
        return "-".join(parts)


def make(case: Case, seed: int = 0) -> ConvCall:
    """Normal values, weights scaled as networks are initialised."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(case.cout, case.cin // case.groups, *case.kernel, generator=random)
    x = torch.randn(case.batch, case.cin, *case.size, generator=random)
    call = ConvCall(
        x=x,
        weight=weight / max(1, weight[0].numel()) ** 0.5,
        bias=torch.randn(case.cout, generator=random) if case.bias else None,
        residual=None,
        window=window_of(len(case.size), case.stride, case.padding, case.dilation),
        groups=case.groups,
        activation=activation_of("conv", case.activation),
        config=case.config,
    )
    if not case.residual:
        return call
    residual = torch.randn(call.out_shape, generator=random)
    return ConvCall(**{**vars(call), "residual": residual})


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return limit_of_sums(OP, make, case, 1e-5)


def _longer_kernels() -> list[Case]:
    """Winograd's tiles of kernels of 5 and 7, in items of a thread's own and shared."""
    cases = []
    for kernel, tiles in ((5, ((1, 2, 2), (1, 4, 4))), (7, ((1, 2, 2),))):
        for tile in tiles:
            for block, share in ((5, False), (28, True)):
                config = ConvConfig("winograd", tile, block, share)
                size, square, middle = (11, 17), (kernel, kernel), kernel // 2
                cases += [
                    Case(2, 21, 24, size, square, padding=middle, residual=True, activation="relu", config=config),
                    Case(1, 3, 37, (19, 31), square, padding=((2, 0), (0, 3)), dilation=(2, 3), config=config),
                ]
        for outputs in {tile[2] for tile in tiles}:
            row, column = (ConvConfig("winograd", tile, 9) for tile in ((1, 1, outputs), (1, outputs, 1)))
            cases += [
                Case(1, 24, 40, (9, 14), (1, kernel), padding=(0, kernel // 2), groups=2, config=row),
                Case(1, 24, 40, (14, 9), (kernel, 1), padding=(kernel // 2, 0), groups=2, config=column),
            ]
    volume = ConvConfig("winograd", (2, 2, 2), 7)
    return [*cases, Case(1, 5, 33, (6, 7, 9), (5, 5, 5), padding=2, activation="relu6", config=volume)]


def _taps() -> list[Case]:
    """Winograd's weights as taps along the last axis: blocks of channels, of which the last one is not full."""
    cases = []
    for tile in ((1, 2, 2), (1, 4, 4), (1, 6, 6)):
        for block, share in ((17, False), (28, True)):
            config = ConvConfig("winograd", tile, block, share, taps=True)
            cases += [
                Case(2, 21, 64, (13, 17), (3, 3), padding=1, residual=True, activation="relu", config=config),
                Case(1, 150, 128, (9, 31), (3, 3), padding=((2, 0), (0, 3)), dilation=(2, 3), groups=2, config=config),
            ]
    row, volume = ConvConfig("winograd", (1, 1, 6), 9, taps=True), ConvConfig("winograd", (4, 4, 4), 14, taps=True)
    return [
        *cases,
        Case(1, 70, 64, (50,), (3,), padding=1, config=row),
        Case(1, 70, 64, (6, 7, 9), (3, 3, 3), padding=1, config=volume),
    ]


def _tiles() -> list[Case]:
    """Every Winograd tile, over odd sizes, borders and tails."""
    cases = []
    for tile in ((1, 2, 2), (1, 4, 4), (1, 6, 6)):
        for block, share in ((5, False), (28, True)):
            config = ConvConfig("winograd", tile, block, share)
            cases += [
                Case(2, 21, 24, (13, 17), (3, 3), padding=1, residual=True, activation="relu", config=config),
                Case(1, 3, 37, (9, 31), (3, 3), padding=((2, 0), (0, 3)), dilation=(2, 3), config=config),
                Case(1, 40, 5, (7, 8), (3, 3), activation="silu", config=config),
            ]
    for block, share in ((5, False), (28, True)):
        config = ConvConfig("winograd", (1, 3, 3), block, share)
        cases += [
            Case(2, 21, 24, (13, 17), (3, 3), 2, padding=1, residual=True, activation="relu", config=config),
            Case(1, 3, 37, (9, 30), (3, 3), 2, padding=((2, 0), (0, 3)), config=config),
            Case(1, 9, 40, (3, 8, 7), (1, 3, 3), (1, 2, 2), config=config),
        ]
    for tile in ((2, 2, 2), (2, 4, 4), (4, 4, 4), (6, 4, 4)):
        for block, share in ((3, False), (14, True)):
            config = ConvConfig("winograd", tile, block, share)
            cases += [
                Case(2, 21, 21, (6, 7, 9), (3, 3, 3), padding=1, residual=True, activation="relu6", config=config),
                Case(1, 5, 33, (9, 5, 11), (3, 3, 3), padding=(2, 1, 3), dilation=(2, 1, 3), config=config),
            ]
    for outputs in (2, 4, 6):
        config = ConvConfig("winograd", (1, 1, outputs), 9)
        column = ConvConfig("winograd", (1, outputs, 1), 9)
        cases += [
            Case(1, 19, 18, (37,), (3,), padding=1, dilation=2, config=config),
            Case(2, 19, 18, (11, 13), (1, 3), padding=(0, 1), config=config),
            Case(1, 19, 18, (11, 13), (3, 1), padding=(1, 0), activation="gelu", config=column),
        ]
    mixed = ConvConfig("winograd", (4, 4, 1), 7)
    stream, six = ConvConfig("winograd", (1, 4, 4), 14, stream=True), ConvConfig("winograd", (1, 6, 6), 14)
    return [
        *cases,
        Case(1, 8, 32, (6, 7, 5), (3, 3, 1), padding=(1, 1, 0), config=mixed),
        Case(1, 32, 64, (23, 22), (3, 3), padding=1, config=stream),
        Case(1, 32, 64, (23, 22), (3, 3), padding=1, groups=2, residual=True, config=six),
    ]


def _strassen() -> list[Case]:
    """Blocks of even and odd numbers of pixels, with tails in their columns and in the panels of outputs."""
    nine, all_rows, stream = (ConvConfig("strassen", block=block, stream=block == 28) for block in (9, 61, 28))
    return [
        *(Case(1, c, 150, (9, 11), (1, 1), activation="relu6", config=nine) for c in (32, 39, 64, 728)),
        *(Case(2, 100, 64, (8, 7), (1, 1), residual=True, activation="silu", config=c) for c in (nine, all_rows)),
        Case(1, 72, 128, (6, 7), (1, 1), bias=False, activation="relu", config=stream),
        Case(1, 1024, 200, (5, 7), (1, 1), config=all_rows),  # gathered
        Case(2, 80, 96, (9, 8), (1, 1), stride=2, residual=True, config=nine),
        Case(1, 21, 133, (9, 8), (3, 3), stride=2, padding=1, residual=True, activation="leaky", config=all_rows),
        Case(1, 40, 64, (4, 5, 3), (2, 1, 2), padding=(1, 0, 1), config=nine),
        Case(1, 64, 64, (13,), (1,), config=ConvConfig("strassen", block=1)),
        *(Case(1, c, 80, (5, 6), (1, 1), residual=True, activation="silu", config=nine) for c in (528, 1099)),  # pieces
    ]


_PLANAR = ConvConfig("planar", block=9)

CASES = [
    # 1x1, in place and gathered, with tails
    *(Case(1, c, c, (9, 11), (1, 1), activation="relu") for c in (1, 3, 21, 24, 64, 728)),
    Case(2, 64, 40, (7, 5), (1, 1), stride=2),
    Case(2, 20, 50, (6, 5, 4), (1, 1, 1), residual=True),
    Case(1, 16, 16, (5, 6), (1, 1), padding=1),
    Case(1, 2048, 1000, (1, 1), (1, 1)),
    Case(1, 1024, 24, (5, 7), (1, 1)),  # gathered: its pixels meet in the same lines of L1
    # any window
    Case(1, 3, 64, (40, 41), (7, 7), stride=2, padding=3, activation="relu"),
    Case(2, 1, 5, (17, 16), (5, 4), padding=((1, 2), (3, 0))),
    Case(1, 21, 33, (15, 14), (3, 3), stride=2, padding=1, residual=True, activation="leaky"),
    Case(1, 4, 96, (30, 33), (11, 11), stride=4, padding=2),
    # of pieces, which in bfloat16 are one
    Case(2, 176, 50, (9, 8), (3, 3), stride=2, padding=1, residual=True, activation="leaky"),
    Case(1, 320, 36, (5, 12), (3, 3), padding=4, dilation=4, groups=2, activation="silu"),
    # by tiles: several boxes along each axis, lattices of dilation, blocks of channels, joined taps
    Case(1, 70, 40, (9, 150), (3, 3), padding=1, residual=True, activation="relu"),
    Case(1, 33, 34, (7, 40, 12), (3, 3, 3), padding=1, dilation=(1, 2, 1), activation="silu"),
    Case(1, 40, 70, (21, 26), (3, 5), stride=(2, 1), padding=(2, 4), dilation=(3, 2), residual=True),
    Case(1, 3, 20, (150, 21), (5, 3), stride=(3, 2), padding=(2, 1), residual=True, activation="leaky"),
    Case(2, 24, 48, (11, 12), (3, 3), padding=1, groups=2),
    Case(1, 64, 48, (14, 14), (3, 3), stride=(1, 2), padding=1),
    Case(2, 13, 7, (50,), (5,), stride=3, padding=2, dilation=2),
    Case(1, 5, 9, (9, 8, 7), (3, 2, 5), stride=(1, 2, 1), padding=(1, 0, 2), activation="tanh"),
    Case(1, 1, 16, (12, 12, 12), (3, 3, 3), stride=2, padding=1, bias=False),
    Case(1, 256, 256, (7, 7), (3, 3), padding=1, activation="relu"),
    # few input channels
    *(Case(2, 3, c, (9, 61), (3, 5), (2, 1), ((0, 2), (3, 1)), (1, 2), residual=True, config=_PLANAR) for c in (7, 40)),
    Case(1, 2, 32, (20, 22), (3, 3), padding=1, config=ConvConfig("planar", block=30, stream=True)),
    Case(1, 4, 17, (6, 7, 40), (2, 3, 3), (1, 2, 3), padding=2, activation="silu", config=_PLANAR),
    Case(1, 3, 16, (7, 9), (3, 3), padding=10, dilation=10, config=_PLANAR),
    # few output channels
    *(Case(2, cin, cout, (5, 37), (1, 1), activation="relu") for cin, cout in ((64, 2), (21, 3), (7, 1), (728, 8))),
    Case(1, 20, 5, (3, 4, 33), (1, 1, 1), 2, padding=(0, 1, 2), residual=True, activation="silu"),
    Case(1, 33, 2, (50,), (1,), padding=18, residual=True, activation="relu6"),
    # 3x3 and 3x3x3 by the op's own choice
    *(Case(1, c, c, (29, 31), (3, 3), padding=1) for c in (1, 3, 21, 24, 64)),
    Case(1, 344, 344, (9, 9), (3, 3), padding=1),
    Case(1, 24, 21, (33, 20), (3, 3), padding=16, dilation=16, activation="relu"),
    Case(1, 16, 24, (7, 9), (3, 3), padding=10, dilation=10),  # dilation larger than the image
    Case(3, 21, 21, (13, 12, 14), (3, 3, 3), padding=2, dilation=2, activation="relu"),
    Case(1, 1, 24, (16, 15, 14), (3, 3, 3), padding=1),
    Case(1, 32, 32, (13, 14, 15), (3, 3, 3), padding=1, residual=True),
    Case(1, 9, 9, (3, 4, 5), (3, 3, 3), padding=7, dilation=7),
    Case(1, 32, 32, (20, 20), (1, 3), padding=(0, 1)),
    Case(1, 32, 32, (20, 20), (7, 1), padding=(3, 0)),
    # groups
    *(Case(1, 8 * size, 8 * size, (9, 10), (3, 3), padding=1, groups=8) for size in (1, 2, 3, 4, 8, 16)),
    Case(2, 12, 24, (8, 7), (3, 3), stride=2, padding=1, groups=4, residual=True, activation="relu"),
    Case(2, 20, 20, (8, 17), (3, 3), stride=2, padding=1, groups=5, residual=True, activation="silu"),
    Case(1, 40, 40, (5, 6, 7), (3, 3, 3), padding=2, dilation=2, groups=40),
    Case(1, 6, 12, (9, 9), (3, 3), padding=1, groups=6),
    *(
        Case(2, 3 * size, 3 * size, (7, 31), (3, 3), padding=1, groups=3, config=ConvConfig("product", block=20))
        for size in (4, 10, 16, 40, 70)
    ),
    Case(
        1,
        48,
        96,
        (30, 47),
        (3, 5),
        stride=(2, 3),
        padding=((0, 2), (3, 1)),
        groups=3,
        activation="silu",
        config=ConvConfig("product"),
    ),
    Case(
        1,
        32,
        64,
        (6, 7, 20),
        (3, 3, 3),
        padding=2,
        dilation=2,
        groups=2,
        residual=True,
        activation="relu",
        config=ConvConfig("product"),
    ),
    Case(1, 32, 32, (300,), (9,), padding=30, dilation=7, groups=2, config=ConvConfig("product")),
    # nothing to do
    Case(0, 16, 8, (9, 9), (3, 3), padding=1),
    *_tiles(),
    *_longer_kernels(),
    *_taps(),
    *_strassen(),
]


def _square(channels: int, size: int, kernel: int = 3, axes: int = 2, **window: int) -> Case:
    """A layer of a network: equal sides, "same" padding, ReLU."""
    dilation = window.get("dilation", 1)
    padding = dilation * (kernel // 2)
    return Case(1, channels, channels, (size,) * axes, (kernel,) * axes, padding=padding, activation="relu", **window)


# What bench/ops.py measures: layers of VGG, U-Net, dilated context nets, 3D U-Net, MeshNet, ResNet.
BENCH = [
    *(_square(c, s) for c, s in ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14), (64, 512), (64, 56))),
    *(_square(64, 128, dilation=d) for d in (2, 4, 8, 16)),
    *(_square(c, s, axes=3) for c, s in ((32, 96), (32, 48), (64, 48), (128, 24))),
    *(_square(21, 96, axes=3, dilation=d) for d in (1, 2, 4)),
    *(_square(c, s, kernel=1) for c, s in ((64, 56), (256, 28), (512, 14), (728, 19))),
    *(_square(c, s, stride=2) for c, s in ((64, 112), (128, 56), (256, 28))),
    Case(1, 3, 64, (224, 224), (7, 7), stride=2, padding=3, activation="relu"),
    Case(1, 3, 32, (224, 224), (3, 3), stride=2, padding=1, activation="relu6"),
    _square(128, 56, groups=32),
]
