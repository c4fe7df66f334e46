"""MobileNet v1 (timm's state_dict names) and v2 (torchvision's), in 2D and 3D."""

from __future__ import annotations

from torch import Tensor, nn

from fastnets.models.entry import ModelEntry
from fastnets.models.layers import he_init, layers
from fastnets.models.transform import CENTRED, IMAGENET, InputTransform

# (channels, stride) of each separable convolution of v1, grouped by resolution.
_V1 = (((64, 1),), ((128, 2), (128, 1)), ((256, 2), (256, 1)), ((512, 2), *(((512, 1),) * 5)), ((1024, 2), (1024, 1)))
# Expansion, channels, repeats, stride: table 2 of v2's paper.
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV1(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size from 32.

    Paper: Howard et al., "MobileNets: Efficient Convolutional Neural Networks …" (arXiv 1704.04861).
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        nd = layers(dims)
        self.conv_stem, self.bn1 = nd.conv(in_channels, 32, 3, 2, 1, bias=False), nd.norm(32)
        self.act = nn.ReLU6()
        stages, i = [], 32
        for stage in _V1:
            blocks = []
            for o, stride in stage:
                blocks.append(_Separable(dims, i, o, stride))
                i = o
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.avgpool = nd.adaptive_avg_pool(1)
        self.classifier = nn.Linear(1024, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act(self.bn1(self.conv_stem(x))))
        return self.classifier(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


class _Separable(nn.Module):
    def __init__(self, dims: int, i: int, o: int, stride: int) -> None:
        super().__init__()
        nd = layers(dims)
        self.conv_dw, self.bn1 = nd.conv(i, i, 3, stride, 1, groups=i, bias=False), nd.norm(i)
        self.conv_pw, self.bn2 = nd.conv(i, o, 1, bias=False), nd.norm(o)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv_dw(x)))
        return self.act(self.bn2(self.conv_pw(x)))  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size from 32.

    Paper: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018).
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv(dims, in_channels, 32, 3, stride=2)]
        i = 32
        for expansion, o, repeats, stride in _V2:
            for n in range(repeats):
                features.append(_InvertedResidual(dims, i, o, expansion, stride if n == 0 else 1))
                i = o
        self.features = nn.Sequential(*features, _conv(dims, i, 1280, 1))
        self.avgpool = layers(dims).adaptive_avg_pool(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


class _InvertedResidual(nn.Module):
    """1×1 expansion, 3-wide depthwise, linear 1×1 projection; added to the input where the shapes agree."""

    def __init__(self, dims: int, i: int, o: int, expansion: int, stride: int) -> None:
        super().__init__()
        nd, width = layers(dims), i * expansion
        expand = [_conv(dims, i, width, 1)] if expansion > 1 else []
        depthwise = _conv(dims, width, width, 3, stride=stride, groups=width)
        self.conv = nn.Sequential(*expand, depthwise, nd.conv(width, o, 1, bias=False), nd.norm(o))
        self.residual = stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


def _conv(dims: int, i: int, o: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    nd = layers(dims)
    conv = nd.conv(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nd.norm(o), nn.ReLU6())


ENTRIES = (
    ModelEntry(
        name="mobilenet_v1",
        build=MobileNetV1,
        summary="MobileNet: depthwise-separable convolutions, for classification",
        paper="Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017",
        year=2017,
        parameters=4_231_976,
        dims=(2, 3),
        reference="timm mobilenetv1_100",
        known_weights="timm mobilenetv1_100.ra4_e3600_r224_in1k, Apache-2.0",
        headline="ImageNet validation, one crop: top-1 70.6 % (the paper)",
        transform=InputTransform(size=224, resize=256, normalize=CENTRED, interpolation="bicubic"),
    ),
    ModelEntry(
        name="mobilenet_v2",
        build=MobileNetV2,
        summary="MobileNetV2: inverted residuals with depthwise convolutions, for classification",
        paper="Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
        year=2018,
        parameters=3_504_872,
        dims=(2, 3),
        reference="torchvision",
        known_weights="torchvision IMAGENET1K_V1, BSD-3-Clause",
        headline="ImageNet validation, one crop: top-1 and top-5 71.878 and 90.286 % (torchvision's IMAGENET1K_V1)",
        transform=IMAGENET,
    ),
)
