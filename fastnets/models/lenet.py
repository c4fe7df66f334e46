"""LeNet-5: the network of 1998, with all its particulars, and the dense form that is usually called by its name.

Paper: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (Proc. IEEE 1998).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models.entry import ModelEntry
from fastnets.models.layers import layers
from fastnets.models.recipe import MeanStd
from fastnets.models.transform import InputTransform

# Which of the six maps of S2 each of the sixteen maps of C3 reads: table I of the paper.
C3_TABLE = (
    *((n, (n + 1) % 6, (n + 2) % 6) for n in range(6)),
    *(tuple(sorted((n + k) % 6 for k in range(4))) for n in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# 7×12 pictures of the digits, what the 84 units of F6 should look like. The paper shows its own in figure 3 and
# gives no numbers; these are drawn anew.
_DIGITS = """
.#####. ...#... .#####. .#####. #....## ####### .#####. ####### .#####. .#####.
##...## ..##... ##...## ##...## #....## ##..... ##...## #....## ##...## ##...##
##...## .###... .....## .....## #....## ##..... ##..... .....## ##...## ##...##
##..### ..##... .....## .....## #....## ##..... ##..... ....##. ##...## ##...##
##.#.## ..##... ....##. ....##. #....## ######. ##..... ....##. .##.##. ##...##
##.#.## ..##... ...##.. ..####. ####### .....## ######. ...##.. ..###.. .######
###..## ..##... ..##... .....## .###### .....## ##...## ...##.. .##.##. .....##
##...## ..##... .##.... .....## .....## .....## ##...## ..##... ##...## .....##
##...## ..##... ##..... .....## .....## .....## ##...## ..##... ##...## .....##
##...## ..##... ##..... ##...## .....## ##...## ##...## ..##... ##...## ##...##
.#####. .#####. ####### .#####. .....## .#####. .#####. ..##... .#####. .#####.
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""
DIGITS = InputTransform(size=32, normalize=MeanStd(mean=(20.0,), std=(200.0,)))  # paper −0.1 … ink 1.175, as printed


class ScaledTanh(nn.Module):
    """1.7159 · tanh(2x/3), which is ±1 at ±1: the squashing function of the paper's appendix A."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsample(nn.Module):
    """The mean of 2×2(×2) pixels, times one gain, plus one bias, for every channel: (N, C, …) → half of every side.

    The paper has the sum, which is the same up to the gain.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.pool = layers(dims).avg_pool(2)
        self.weight = nn.Parameter(torch.full((channels, *[1] * dims), 1.0))
        self.bias = nn.Parameter(torch.zeros(channels, *[1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) * self.weight + self.bias  # type: ignore[no-any-return]


class PartialConv(nn.Module):
    """A 5-wide convolution in which each output channel reads some of the input channels: `table` says which.

    The weights of the connections alone are parameters: (connections, 5, 5[, 5]).
    """

    def __init__(self, dims: int, table: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.i, self.convolve = 1 + max(map(max, table)), getattr(nn.functional, f"conv{dims}d")
        self.pairs: Tensor
        pairs = torch.tensor([(o, i) for o, inputs in enumerate(table) for i in inputs])
        self.register_buffer("pairs", pairs, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), *[5] * dims))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.new_zeros(len(self.bias), self.i, *self.weight.shape[1:])
        kernel = kernel.index_put((self.pairs[:, 0], self.pairs[:, 1]), self.weight)
        return self.convolve(x, kernel, self.bias)  # type: ignore[no-any-return]


class Distances(nn.Module):
    """−‖x − c‖² for each of ten fixed ±1 pictures c of 84 pixels: (N, 84) → (N, 10), the nearest largest."""

    def __init__(self) -> None:
        super().__init__()
        rows = [line.split() for line in _DIGITS.split("\n") if line]
        ink = [[pixel == "#" for row in rows for pixel in row[digit]] for digit in range(10)]
        self.centres: Tensor
        self.register_buffer("centres", 2 * torch.tensor(ink, dtype=torch.float32) - 1)

    def forward(self, x: Tensor) -> Tensor:
        return -((x[:, None] - self.centres) ** 2).sum(2)


class LeNet5(nn.Module):
    """(N, in_channels, [32,] 32, 32) → minus the squared distances to ten digits' pictures (N, 10).

    Trainable sub-sampling, the partial connections of table I, and radial basis functions for an output. The
    largest output is the class. The paper trains the distances with a margin; cross entropy does as well.

    Raises InputError for other image sizes and for another number of classes.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        if num_classes != 10:
            raise InputError(f"lenet5: num_classes={num_classes}: it has one fixed picture for each of 10 digits")
        nd = layers(dims)
        self.c1 = nd.conv(in_channels, 6, 5)
        self.s2 = Subsample(dims, 6)
        self.c3 = PartialConv(dims, C3_TABLE)
        self.s4 = Subsample(dims, 16)
        self.c5 = nd.conv(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.act = ScaledTanh()
        self.output = Distances()
        self._init(dims, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        _check_size("lenet5", x)
        x = self.act(self.s2(self.act(self.c1(x))))
        x = self.act(self.s4(self.act(self.c3(x))))
        x = self.act(self.c5(x)).flatten(1)
        return self.output(self.act(self.f6(x)))  # type: ignore[no-any-return]

    def _init(self, dims: int, in_channels: int) -> None:
        """Uniform in ±2.4 / (number of inputs of a unit)."""
        area = 5**dims
        with torch.no_grad():
            for weight, fan_in in (
                (self.c1.weight, in_channels * area),
                (self.c3.weight, len(self.c3.weight) // len(self.c3.bias) * area),
                (self.c5.weight, 16 * area),
                (self.f6.weight, 120),
            ):
                weight.uniform_(-2.4 / fan_in, 2.4 / fan_in)


class LeNet5Dense(nn.Module):
    """(N, in_channels, [32,] 32, 32) → logits (N, num_classes): full C3, plain average pooling, a linear output.

    Raises InputError for other image sizes.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        nd = layers(dims)
        self.c1 = nd.conv(in_channels, 6, 5)
        self.c3 = nd.conv(6, 16, 5)
        self.c5 = nd.conv(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)
        self.pool = nd.avg_pool(2)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        _check_size("lenet5_dense", x)
        x = self.pool(self.act(self.c1(x)))
        x = self.pool(self.act(self.c3(x)))
        x = self.act(self.c5(x)).flatten(1)
        return self.output(self.act(self.f6(x)))  # type: ignore[no-any-return]


def _check_size(name: str, x: Tensor) -> None:
    if any(side != 32 for side in x.shape[2:]):
        raise InputError(f"{name}: the image is {tuple(x.shape[2:])}: pad or resize every side to 32")


_PAPER = "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 1998"

ENTRIES = (
    ModelEntry(
        name="lenet5",
        build=LeNet5,
        summary="LeNet-5 of 1998: trainable sub-sampling, partial connections, radial basis outputs, for digits",
        paper=_PAPER,
        year=1998,
        parameters=60_000,
        dims=(2, 3),
        reference="the paper",
        headline="MNIST test error 0.95 %, 0.8 % with distortions (the paper)",
        transform=DIGITS,
    ),
    ModelEntry(
        name="lenet5_dense",
        build=LeNet5Dense,
        summary="LeNet-5 with ordinary layers, for digits",
        paper=_PAPER,
        year=1998,
        parameters=61_706,
        dims=(2, 3),
        reference="the paper's layer sizes, without its sub-sampling, connection table and output units",
        headline="2.3 % error on 1,000 held-out digits, trained on 4,000 (python -m fastnets.training.digits)",
        transform=DIGITS,
    ),
)
