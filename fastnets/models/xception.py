"""Xception in 2D and 3D, with the state_dict names of timm's legacy_xception."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from fastnets.models.entry import ModelEntry
from fastnets.models.layers import layers, named
from fastnets.models.transform import INCEPTION


class Xception(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). 299×299; any size from 32.

    Paper: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (CVPR 2017).
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        nd = layers(dims)
        self.conv1, self.bn1 = nd.conv(in_channels, 32, 3, 2, bias=False), nd.norm(32)
        self.conv2, self.bn2 = nd.conv(32, 64, 3, bias=False), nd.norm(64)
        self.relu = nn.ReLU()
        self.block1 = _Block(dims, (64, 128, 128), stride=2, relu_first=False)
        self.block2 = _Block(dims, (128, 256, 256), stride=2)
        self.block3 = _Block(dims, (256, 728, 728), stride=2)
        for n in range(4, 12):
            self.add_module(f"block{n}", _Block(dims, (728, 728, 728, 728)))
        self.block12 = _Block(dims, (728, 728, 1024), stride=2)
        self.conv3, self.bn3 = _separable(dims, 1024, 1536), nd.norm(1536)
        self.conv4, self.bn4 = _separable(dims, 1536, 2048), nd.norm(2048)
        self.avgpool = nd.adaptive_avg_pool(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        for n in range(1, 13):
            x = self.get_submodule(f"block{n}")(x)
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.bn4(self.conv4(x)))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Separable convolutions between `widths`, each after a ReLU, around a shortcut, projected where it strides."""

    def __init__(self, dims: int, widths: tuple[int, ...], *, stride: int = 1, relu_first: bool = True) -> None:
        super().__init__()
        nd = layers(dims)
        rep: list[nn.Module] = []
        for i, o in pairwise(widths):
            rep += [nn.ReLU(), _separable(dims, i, o), nd.norm(o)]
        self.rep = nn.Sequential(*rep[0 if relu_first else 1 :])
        self.skip: nn.Module = nn.Identity()
        self.skipbn: nn.Module = nn.Identity()
        if stride > 1:
            self.rep.append(nd.max_pool(3, stride, 1))
            self.skip, self.skipbn = nd.conv(widths[0], widths[-1], 1, stride, bias=False), nd.norm(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.rep(x) + self.skipbn(self.skip(x))  # type: ignore[no-any-return]


def _separable(dims: int, i: int, o: int) -> nn.Sequential:
    """A 3-wide convolution of every channel, then a 1×1 across them, with nothing in between."""
    nd = layers(dims)
    return named(conv1=nd.conv(i, i, 3, padding=1, groups=i, bias=False), pointwise=nd.conv(i, o, 1, bias=False))


ENTRIES = (
    ModelEntry(
        name="xception",
        build=Xception,
        summary="Xception: depthwise-separable convolutions and residuals, for classification",
        paper="Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017",
        year=2016,
        parameters=22_855_952,
        dims=(2, 3),
        reference="timm legacy_xception",
        known_weights="timm legacy_xception.tf_in1k, Apache-2.0; Keras, MIT",
        headline="ImageNet validation, one crop: top-1 and top-5 79.0 and 94.5 % (the paper)",
        transform=INCEPTION,
    ),
)
