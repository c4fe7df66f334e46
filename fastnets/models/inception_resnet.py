"""Inception-ResNet-v1 and v2 in 2D and 3D: as their weights are shipped, and as the paper prints them.

Paper: Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet …" (AAAI 2017, arXiv 1602.07261).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fastnets.models.entry import ModelEntry
from fastnets.models.inception import COLUMN, ROW, pooled, stem
from fastnets.models.layers import Branches, Step, chain, conv_norm, layers
from fastnets.models.transform import INCEPTION

# (channels, kernel) of each convolution in each branch.
_V1_35: tuple[tuple[Step, ...], ...] = (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (32, 3), (32, 3)))
_V2_35: tuple[tuple[Step, ...], ...] = (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))
_V1_17: tuple[tuple[Step, ...], ...] = (((128, 1),), ((128, 1), (128, ROW), (128, COLUMN)))
_V2_17: tuple[tuple[Step, ...], ...] = (((192, 1),), ((128, 1), (160, ROW), (192, COLUMN)))
_V1_8: tuple[tuple[Step, ...], ...] = (((192, 1),), ((192, 1), (192, (1, 3)), (192, (3, 1))))
_V2_8: tuple[tuple[Step, ...], ...] = (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1))))


class _Residual(nn.Module):
    """x + scale · (1×1 convolution of the concatenated branches), then a ReLU unless it is the last block."""

    def __init__(
        self, dims: int, i: int, branches: tuple[tuple[Step, ...], ...], *, scale: float, relu: bool = True
    ) -> None:
        super().__init__()
        self.branch0 = chain(dims, i, *branches[0])
        self.branch1 = chain(dims, i, *branches[1])
        self.branch2 = chain(dims, i, *branches[2]) if len(branches) > 2 else None
        self.conv2d = layers(dims).conv(sum(steps[-1][0] for steps in branches), i, 1)
        self.scale = scale
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in (self.branch0, self.branch1, self.branch2) if branch is not None]
        return self.act(x + self.scale * self.conv2d(torch.cat(parts, 1)))  # type: ignore[no-any-return]


def _repeat(dims: int, i: int, branches: tuple[tuple[Step, ...], ...], *, scale: float, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(dims, i, branches, scale=scale) for _ in range(count)))


def _reduction_a(dims: int, i: int, k: int, l: int, m: int, n: int) -> Branches:  # noqa: E741  the paper's letters
    return Branches(
        branch0=chain(dims, i, (n, 3, 2)),
        branch1=chain(dims, i, (k, 1), (l, 3), (m, 3, 2)),
        branch2=layers(dims).max_pool(3, 2),
    )


def _reduction_b(dims: int, i: int, second: int, third: tuple[int, int]) -> Branches:
    return Branches(
        branch0=chain(dims, i, (256, 1), (384, 3, 2)),
        branch1=chain(dims, i, (256, 1), (second, 3, 2)),
        branch2=chain(dims, i, (256, 1), (third[0], 3), (third[1], 3, 2)),
        branch3=layers(dims).max_pool(3, 2),
    )


class InceptionResNetV2(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). 299×299; any size from 75.

    The network of TF-slim, Keras, Cadene and timm, with timm's names: 10, 20 and 9 + 1 residual blocks.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        nd = layers(dims)
        self.conv2d_1a = conv_norm(dims, in_channels, 32, 3, stride=2)
        self.conv2d_2a = conv_norm(dims, 32, 32, 3, padding=0)
        self.conv2d_2b = conv_norm(dims, 32, 64, 3)
        self.maxpool_3a = nd.max_pool(3, 2)
        self.conv2d_3b = conv_norm(dims, 64, 80, 1)
        self.conv2d_4a = conv_norm(dims, 80, 192, 3, padding=0)
        self.maxpool_5a = nd.max_pool(3, 2)
        self.mixed_5b = Branches(
            branch0=chain(dims, 192, (96, 1)),
            branch1=chain(dims, 192, (48, 1), (64, 5)),
            branch2=chain(dims, 192, (64, 1), (96, 3), (96, 3)),
            branch3=pooled(dims, 192, 64),
        )
        self.repeat = _repeat(dims, 320, _V2_35, scale=0.17, count=10)
        self.mixed_6a = _reduction_a(dims, 320, 256, 256, 384, 384)
        self.repeat_1 = _repeat(dims, 1088, _V2_17, scale=0.10, count=20)
        self.mixed_7a = _reduction_b(dims, 1088, 288, (288, 320))
        self.repeat_2 = _repeat(dims, 2080, _V2_8, scale=0.20, count=9)
        self.block8 = _Residual(dims, 2080, _V2_8, scale=1.0, relu=False)
        self.conv2d_7b = conv_norm(dims, 2080, 1536, 1)
        self.avgpool = nd.adaptive_avg_pool(1)
        self.dropout = nn.Dropout(0.2)
        self.classif = nn.Linear(1536, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.maxpool_5a(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat(self.mixed_5b(x)))
        x = self.mixed_7a(self.repeat_1(x))
        x = self.conv2d_7b(self.block8(self.repeat_2(x)))
        return self.classif(self.dropout(self.avgpool(x).flatten(1)))  # type: ignore[no-any-return]


class InceptionResNetV2Paper(nn.Module):
    """The network of the paper's text: 5, 10 and 5 residual blocks after the stem of Inception-v4.

    The paper prints linear layers of 1154 and 2048 channels, which cannot be added to trunks of 1152 and 2144:
    here they have the channels of the trunk.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *stem(dims, in_channels),
            _repeat(dims, 384, _V2_35, scale=0.17, count=5),
            _reduction_a(dims, 384, 256, 256, 384, 384),
            _repeat(dims, 1152, _V2_17, scale=0.10, count=10),
            _reduction_b(dims, 1152, 288, (288, 320)),
            _repeat(dims, 2144, _V2_8, scale=0.20, count=5),
        )
        self.avgpool = layers(dims).adaptive_avg_pool(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(2144, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.avgpool(self.features(x)).flatten(1)))  # type: ignore[no-any-return]


class InceptionResNetV1(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size from 75.

    embedding: 0 is the paper's network. 512 is facenet-pytorch's, with its names: one more residual block without
        ReLU, an embedding of 512 numbers, and the logits after that; num_classes=0 returns the embedding itself,
        of length 1.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000, embedding: int = 0) -> None:
        super().__init__()
        nd = layers(dims)
        self.conv2d_1a = conv_norm(dims, in_channels, 32, 3, stride=2)
        self.conv2d_2a = conv_norm(dims, 32, 32, 3, padding=0)
        self.conv2d_2b = conv_norm(dims, 32, 64, 3)
        self.maxpool_3a = nd.max_pool(3, 2)
        self.conv2d_3b = conv_norm(dims, 64, 80, 1)
        self.conv2d_4a = conv_norm(dims, 80, 192, 3, padding=0)
        self.conv2d_4b = conv_norm(dims, 192, 256, 3, stride=2)
        self.repeat_1 = _repeat(dims, 256, _V1_35, scale=0.17, count=5)
        self.mixed_6a = _reduction_a(dims, 256, 192, 192, 256, 384)
        self.repeat_2 = _repeat(dims, 896, _V1_17, scale=0.10, count=10)
        self.mixed_7a = _reduction_b(dims, 896, 256, (256, 256))
        self.repeat_3 = _repeat(dims, 1792, _V1_8, scale=0.20, count=5)
        self.block8 = _Residual(dims, 1792, _V1_8, scale=1.0, relu=False) if embedding else nn.Identity()
        self.avgpool_1a = nd.adaptive_avg_pool(1)
        self.embedding = embedding
        if embedding:
            self.dropout = nn.Dropout(0.6)
            self.last_linear = nn.Linear(1792, embedding, bias=False)
            self.last_bn = nn.BatchNorm1d(embedding, eps=1e-3)
        else:
            self.dropout = nn.Dropout(0.2)
        self.logits = nn.Linear(embedding or 1792, num_classes) if num_classes else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.avgpool_1a(self.block8(self.repeat_3(x))).flatten(1)
        x = self.dropout(x)
        if self.embedding:
            x = self.last_bn(self.last_linear(x))
        return normalize(x) if self.logits is None else self.logits(x)


_PAPER = (
    "Szegedy, Ioffe, Vanhoucke, Alemi, Inception-v4, Inception-ResNet and the Impact of Residual Connections on "
    "Learning, AAAI 2017"
)
_entry = partial(ModelEntry, paper=_PAPER, year=2016, dims=(2, 3))

ENTRIES = (
    _entry(
        name="inception_resnet_v1",
        build=InceptionResNetV1,
        summary="Inception-ResNet-v1, for classification; embedding=512 is facenet-pytorch's, for faces",
        parameters=22_756_328,
        reference="the paper; facenet-pytorch InceptionResnetV1 where embedding=512",
        known_weights="facenet-pytorch vggface2 and casia-webface, MIT (embedding=512)",
        headline="ImageNet validation, one crop: top-1 and top-5 error 21.3 and 5.5 % (the paper)",
        transform=INCEPTION,
    ),
    _entry(
        name="inception_resnet_v2",
        build=InceptionResNetV2,
        summary="Inception-ResNet-v2 as its weights are shipped, for classification",
        parameters=55_843_464,
        reference="timm inception_resnet_v2",
        known_weights="timm inception_resnet_v2.tf_in1k and .tf_ens_adv_in1k, Apache-2.0",
        headline="ImageNet validation, one crop: top-1 and top-5 80.4 and 95.3 % (TensorFlow's weights)",
        transform=INCEPTION,
    ),
    _entry(
        name="inception_resnet_v2_2016",
        build=InceptionResNetV2Paper,
        summary="Inception-ResNet-v2 of the paper's text, for classification",
        parameters=32_433_928,
        reference="the paper, with linear layers as wide as the trunk",
        headline="ImageNet validation, one crop: top-1 and top-5 error 19.9 and 4.9 % (the paper)",
        transform=INCEPTION,
    ),
)
