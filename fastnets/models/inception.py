"""Inception-v4 in 2D and 3D, with timm's state_dict names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastnets.models.entry import ModelEntry
from fastnets.models.layers import Branches, Size, chain, conv_norm, layers
from fastnets.models.transform import CENTRED, InputTransform

ROW: Size = (1, 7)
COLUMN: Size = (7, 1)


class InceptionV4(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). 299×299; any size from 75,
    in 3D from 139.

    Paper: Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet …" (AAAI 2017, arXiv 1602.07261).
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *stem(dims, in_channels),
            *(_a(dims) for _ in range(4)),
            Branches(
                branch0=chain(dims, 384, (384, 3, 2)),
                branch1=chain(dims, 384, (192, 1), (224, 3), (256, 3, 2)),
                branch2=layers(dims).max_pool(3, 2),
            ),
            *(_b(dims) for _ in range(7)),
            Branches(
                branch0=chain(dims, 1024, (192, 1), (192, 3, 2)),
                branch1=chain(dims, 1024, (256, 1), (256, ROW), (320, COLUMN), (320, 3, 2)),
                branch2=layers(dims).max_pool(3, 2),
            ),
            *(_C(dims) for _ in range(3)),
        )
        self.avgpool = layers(dims).adaptive_avg_pool(1)
        self.dropout = nn.Dropout(0.2)
        self.last_linear = nn.Linear(1536, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x)).flatten(1)
        return self.last_linear(self.dropout(x))  # type: ignore[no-any-return]


def stem(dims: int, in_channels: int) -> list[nn.Module]:
    """The six modules with which Inception-v4 and the paper's Inception-ResNet-v2 begin: 384 channels, 1/8 size."""
    nd = layers(dims)
    second = chain(dims, 160, (64, 1), (64, ROW), (64, COLUMN))
    second.append(conv_norm(dims, 64, 96, 3, padding=0))
    return [
        conv_norm(dims, in_channels, 32, 3, stride=2),
        conv_norm(dims, 32, 32, 3, padding=0),
        conv_norm(dims, 32, 64, 3),
        Branches(maxpool=nd.max_pool(3, 2), conv=conv_norm(dims, 64, 96, 3, stride=2)),
        Branches(
            branch0=nn.Sequential(conv_norm(dims, 160, 64, 1), conv_norm(dims, 64, 96, 3, padding=0)), branch1=second
        ),
        Branches(conv=conv_norm(dims, 192, 192, 3, stride=2), maxpool=nd.max_pool(3, 2)),
    ]


def pooled(dims: int, i: int, o: int) -> nn.Sequential:
    """3-wide average pooling that leaves the padding out, and a 1×1 convolution."""
    return nn.Sequential(layers(dims).avg_pool(3, 1, 1, count_include_pad=False), conv_norm(dims, i, o, 1))


def _a(dims: int) -> Branches:
    return Branches(
        branch0=chain(dims, 384, (96, 1)),
        branch1=chain(dims, 384, (64, 1), (96, 3)),
        branch2=chain(dims, 384, (64, 1), (96, 3), (96, 3)),
        branch3=pooled(dims, 384, 96),
    )


def _b(dims: int) -> Branches:
    return Branches(
        branch0=chain(dims, 1024, (384, 1)),
        branch1=chain(dims, 1024, (192, 1), (224, ROW), (256, COLUMN)),
        branch2=chain(dims, 1024, (192, 1), (192, COLUMN), (224, ROW), (224, COLUMN), (256, ROW)),
        branch3=pooled(dims, 1024, 128),
    )


class _C(nn.Module):
    """Two of the branches fork again, into a 1×3 and a 3×1 convolution."""

    def __init__(self, dims: int) -> None:
        super().__init__()

        def conv(i: int, o: int, kernel: Size) -> Any:
            return conv_norm(dims, i, o, kernel)

        self.branch0 = conv(1536, 256, 1)
        self.branch1_0 = conv(1536, 384, 1)
        self.branch1_1a = conv(384, 256, (1, 3))
        self.branch1_1b = conv(384, 256, (3, 1))
        self.branch2_0 = conv(1536, 384, 1)
        self.branch2_1 = conv(384, 448, (3, 1))
        self.branch2_2 = conv(448, 512, (1, 3))
        self.branch2_3a = conv(512, 256, (1, 3))
        self.branch2_3b = conv(512, 256, (3, 1))
        self.branch3 = pooled(dims, 1536, 256)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1_0(x)
        two = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        ends = (self.branch1_1a(one), self.branch1_1b(one), self.branch2_3a(two), self.branch2_3b(two))
        return torch.cat((self.branch0(x), *ends, self.branch3(x)), 1)


ENTRIES = (
    ModelEntry(
        name="inception_v4",
        build=InceptionV4,
        summary="Inception-v4, for classification",
        paper="Szegedy, Ioffe, Vanhoucke, Alemi, Inception-v4, Inception-ResNet and the Impact of Residual "
        "Connections on Learning, AAAI 2017",
        year=2016,
        parameters=42_679_816,
        dims=(2, 3),
        reference="timm inception_v4",
        known_weights="timm inception_v4.tf_in1k, Apache-2.0",
        headline="ImageNet validation, one crop: top-1 and top-5 80.2 and 95.3 % (TensorFlow's weights)",
        transform=InputTransform(size=299, resize=341, normalize=CENTRED, interpolation="bicubic"),
    ),
)
