"""The networks of bench/models.py, the most telling first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastnets.models.registry import create_model


class DilatedContext(nn.Module):
    """The context network of Yu and Koltun (2016), on an image."""

    def __init__(self, channels: int = 64, classes: int = 21) -> None:
        super().__init__()
        widths = [3, *[channels] * 7]
        layers: list[nn.Module] = []
        for i, d in enumerate((1, 1, 2, 4, 8, 16, 1)):
            layers += [nn.Conv2d(widths[i], widths[i + 1], 3, padding=d, dilation=d), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class MeshNet(nn.Module):
    """Fedorov et al. (2017): dilated 3D convolutions of few channels."""

    def __init__(self, channels: int = 21, classes: int = 3) -> None:
        super().__init__()
        widths = [1, *[channels] * 7]
        layers: list[nn.Module] = []
        for i, d in enumerate((1, 1, 1, 2, 4, 8, 1)):
            layers.append(nn.Conv3d(widths[i], widths[i + 1], 3, padding=d, dilation=d))
            layers += [nn.BatchNorm3d(channels), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv3d(channels, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


@dataclass(frozen=True)
class Network:
    """A network with random weights, the shape of its input, and the package that it comes from, if not ours."""

    name: str
    shape: tuple[int, ...]
    build: Callable[[], nn.Module]
    package: str = ""

    @property
    def is_3d(self) -> bool:
        return len(self.shape) == 5

    def model(self) -> nn.Module:
        """In eval mode; activations keep their scale from layer to layer."""
        torch.manual_seed(0)
        model = self.build()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
        return model.eval()

    def input(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(1))


def _unet(dims: int, channels: int, width: int) -> nn.Module:
    return create_model("unet", dims=dims, in_channels=channels, num_classes=2, width=width)


def from_torchvision(name: str, **options: Any) -> nn.Module:
    """A network of torchvision, whose operators must be declared where its compiled part does not fit torch."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    _LIBRARIES.append(library)  # its operators go with it
    return model


_LIBRARIES: list[torch.library.Library] = []

NETWORKS = [
    Network("vgg16 features", (1, 3, 224, 224), lambda: nn.Sequential(create_model("vgg16").features)),
    Network("unet 2d", (1, 3, 512, 512), lambda: _unet(2, 3, 64)),
    Network("unet 3d", (1, 1, 96, 96, 96), lambda: _unet(3, 1, 32)),
    Network("resnet50", (1, 3, 224, 224), lambda: create_model("resnet50")),
    Network("mobilenet_v2", (1, 3, 224, 224), lambda: create_model("mobilenet_v2")),
    Network("densenet121", (1, 3, 224, 224), lambda: create_model("densenet121")),
    Network("meshnet", (1, 1, 96, 96, 96), MeshNet),
    Network("dilated context", (1, 3, 256, 256), DilatedContext),
    Network("googlenet", (1, 3, 224, 224), lambda: create_model("googlenet")),
    Network("mobilenet_v1", (1, 3, 224, 224), lambda: create_model("mobilenet_v1")),
    Network("xception", (1, 3, 299, 299), lambda: create_model("xception")),
    Network("inception_resnet_v2", (1, 3, 299, 299), lambda: create_model("inception_resnet_v2")),
    Network("vgg16", (1, 3, 224, 224), lambda: create_model("vgg16")),
    Network("resnet50 of torchvision", (1, 3, 224, 224), lambda: from_torchvision("resnet50"), "torchvision"),
    Network("densenet121 of torchvision", (1, 3, 224, 224), lambda: from_torchvision("densenet121"), "torchvision"),
    Network("resnet50 batch 8", (8, 3, 224, 224), lambda: create_model("resnet50")),
    Network("mobilenet_v2 batch 8", (8, 3, 224, 224), lambda: create_model("mobilenet_v2")),
    Network("densenet121 batch 8", (8, 3, 224, 224), lambda: create_model("densenet121")),
]
