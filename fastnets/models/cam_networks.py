"""The networks of "Learning Deep Features for Discriminative Localization", in 2D and 3D: pooling, then one layer.

The paper describes a plain 3×3 convolution of 1024 channels; the networks that were released have two groups.
Paper: Zhou, Khosla, Lapedriza, Oliva, Torralba (CVPR 2016).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastnets.models.entry import ModelEntry
from fastnets.models.googlenet import InceptionTrunk
from fastnets.models.layers import he_init, layers, normal_init
from fastnets.models.transform import CAFFE_MEAN, InputTransform
from fastnets.models.vgg import D, vgg_features


class _Head(nn.Module):
    """Global average pooling, dropout, and the linear layer whose weights a CAM reads."""

    CAM_fc: nn.Linear

    def _add_head(self, dims: int, i: int, num_classes: int) -> None:
        self.avgpool = layers(dims).adaptive_avg_pool(1)
        self.dropout = nn.Dropout()
        self.CAM_fc = nn.Linear(i, num_classes)

    def _pooled(self, x: Tensor) -> Tensor:
        return self.CAM_fc(self.dropout(self.avgpool(x).flatten(1)))  # type: ignore[no-any-return]


def _cam_conv(dims: int, i: int) -> nn.Sequential:
    return nn.Sequential(layers(dims).conv(i, 1024, 3, padding=1, groups=2), nn.ReLU())


class VGG16CAM(_Head):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Maps: `CAM_conv`, 1/16 size."""

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = vgg_features(dims, in_channels, D)[:-1]
        self.CAM_conv = _cam_conv(dims, 512)
        self._add_head(dims, 1024, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self._pooled(self.CAM_conv(self.features(x)))


class GoogLeNetCAM(InceptionTrunk, _Head):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Maps: `CAM_conv`, 1/16 size."""

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__(dims=dims, in_channels=in_channels, variant="paper")
        self.CAM_conv = _cam_conv(dims, 832)
        self._add_head(dims, 1024, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        _, _, x = self.until_4e(x)
        return self._pooled(self.CAM_conv(x))


class AlexNetCAM(_Head):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Maps: `features`, 11×11 of 227."""

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        nd = layers(dims)

        def conv(i: int, o: int, kernel: int = 3, **options: Any) -> list[nn.Module]:
            return [nd.conv(i, o, kernel, **options), nn.ReLU()]

        def pool_and_norm() -> list[nn.Module]:
            return [nd.max_pool(3, 2), nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)]

        self.features = nn.Sequential(
            *conv(in_channels, 96, 11, stride=4),
            *pool_and_norm(),
            *conv(96, 256, 5, padding=2, groups=2),
            *pool_and_norm(),
            *conv(256, 384, padding=1),
            *conv(384, 384, padding=1, groups=2),
            *conv(384, 384, padding=1, groups=2),
            nd.max_pool(3, 1),
            *conv(384, 512, padding=1, groups=2),
            *conv(512, 512, padding=1, groups=2),
        )
        self._add_head(dims, 512, num_classes)
        normal_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self._pooled(self.features(x))


def _entry(name: str, build: type[nn.Module], parameters: int, size: int, caffe: str, headline: str) -> ModelEntry:
    return ModelEntry(
        name=name,
        build=build,
        summary="classifier whose class activation maps show where it looks",
        paper="Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016",
        year=2016,
        parameters=parameters,
        dims=(2, 3),
        reference=f"the released Caffe network {caffe}",
        known_weights=f"{caffe}, MIT (layout='caffe')",
        headline=f"ImageNet validation: {headline} (the paper)",
        transform=InputTransform(size=size, resize=256, normalize=CAFFE_MEAN, order="bgr"),
    )


ENTRIES = (
    _entry(
        "vgg16_cam",
        VGG16CAM,
        18_100_008,
        224,
        "vgg16CAM_train_iter_90000",
        "top-1 error 33.4 %, localisation error 57.20 %",
    ),
    _entry(
        "googlenet_cam",
        GoogLeNetCAM,
        8_345_896,
        224,
        "imagenet_googlenetCAM_train_iter_120000",
        "top-1 error 35.0 %, localisation error 56.40 %",
    ),
    _entry(
        "alexnet_cam",
        AlexNetCAM,
        5_133_800,
        227,
        "alexnetplusCAM_imagenet",
        "top-1 error 44.9 %, localisation error 63.75 %",
    ),
)
