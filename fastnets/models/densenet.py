"""DenseNets in 2D and 3D, with torchvision's state_dict names, and those for CIFAR.

Paper: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks" (CVPR 2017).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models.entry import ModelEntry
from fastnets.models.layers import he_init, layers, named
from fastnets.models.recipe import MeanStd
from fastnets.models.transform import IMAGENET, InputTransform


class DenseLayer(nn.Sequential):
    """The `growth` channels that a layer adds: (N, i, …) → (N, i + growth, …), the input first.

    bottleneck: a 1×1 convolution to 4·growth channels comes before the 3×3.
    """

    def __init__(self, dims: int, i: int, growth: int, *, bottleneck: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        nd = layers(dims)
        if bottleneck:
            self.norm1, self.relu1 = nd.norm(i), nn.ReLU()
            self.conv1 = nd.conv(i, 4 * growth, 1, bias=False)
            self.norm2, self.relu2 = nd.norm(4 * growth), nn.ReLU()
            self.conv2 = nd.conv(4 * growth, growth, 3, padding=1, bias=False)
        else:
            self.norm1, self.relu1 = nd.norm(i), nn.ReLU()
            self.conv1 = nd.conv(i, growth, 3, padding=1, bias=False)
        if dropout:
            self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, super().forward(x)), 1)  # type: ignore[no-untyped-call]


class DenseNet(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes).

    blocks: layers in each dense block.
    growth: channels that each layer adds.
    stem: channels of the first convolution: 7-wide with a pooling, or 3-wide at full resolution if `small`.
    bottleneck, compression: the B and C of DenseNet-BC: see `DenseLayer`, and what part of the channels a
        transition keeps.
    dropout: after every convolution of a dense layer; the paper has 0.2 where images are not augmented.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        blocks: tuple[int, ...] = (6, 12, 24, 16),
        growth: int = 32,
        stem: int = 64,
        small: bool = False,
        bottleneck: bool = True,
        compression: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        nd = layers(dims)
        if small:
            self.features = named(conv0=nd.conv(in_channels, stem, 3, padding=1, bias=False))
        else:
            self.features = named(
                conv0=nd.conv(in_channels, stem, 7, 2, 3, bias=False),
                norm0=nd.norm(stem),
                relu0=nn.ReLU(),
                pool0=nd.max_pool(3, 2, 1),
            )
        i = stem
        for number, count in enumerate(blocks, 1):
            block = nn.Sequential()
            for layer in range(count):
                dense = DenseLayer(dims, i, growth, bottleneck=bottleneck, dropout=dropout)
                block.add_module(f"denselayer{layer + 1}", dense)
                i += growth
            self.features.add_module(f"denseblock{number}", block)
            if number < len(blocks):
                kept = int(i * compression)
                conv = nd.conv(i, kept, 1, bias=False)
                transition = named(norm=nd.norm(i), relu=nn.ReLU(), conv=conv, pool=nd.avg_pool(2))
                self.features.add_module(f"transition{number}", transition)
                i = kept
        self.features.add_module(f"norm{len(blocks) + 1}", nd.norm(i))
        self.relu = nn.ReLU()
        self.avgpool = nd.adaptive_avg_pool(1)
        self.classifier = nn.Linear(i, num_classes)
        he_init(self, mode="fan_in")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.relu(self.features(x))).flatten(1))  # type: ignore[no-any-return]


def cifar_densenet(
    *,
    dims: int = 2,
    in_channels: int = 3,
    num_classes: int = 10,
    depth: int = 40,
    growth: int = 12,
    bottleneck: bool = False,
    dropout: float = 0.0,
) -> DenseNet:
    """The paper's network for 32×32 images: three equal dense blocks; `bottleneck` also halves the channels (BC).

    depth: 3n + 4 layers, or 6n + 4 with bottlenecks. Raises InputError for another.
    """
    step = 6 if bottleneck else 3
    if depth < 4 + step or (depth - 4) % step:
        nearest = 4 + step * max(1, (depth - 4) // step)
        raise InputError(f"densenet_cifar: depth={depth} is not {step}n + 4: pass {nearest}")
    return DenseNet(
        dims=dims,
        in_channels=in_channels,
        num_classes=num_classes,
        blocks=((depth - 4) // step,) * 3,
        growth=growth,
        stem=2 * growth if bottleneck else 16,
        small=True,
        bottleneck=bottleneck,
        compression=0.5 if bottleneck else 1.0,
        dropout=dropout,
    )


def _entry(
    depth: int, blocks: tuple[int, ...], parameters: int, headline: str, *, growth: int = 32, stem: int = 64
) -> ModelEntry:
    torchvision = depth != 264
    return ModelEntry(
        name=f"densenet{depth}",
        build=partial(DenseNet, blocks=blocks, growth=growth, stem=stem),
        summary=f"DenseNet of {depth} layers, for classification",
        paper="Huang, Liu, van der Maaten, Weinberger, Densely Connected Convolutional Networks, CVPR 2017",
        year=2016,
        parameters=parameters,
        dims=(2, 3),
        reference="torchvision" if torchvision else "the paper's table 1; MONAI",
        known_weights="torchvision IMAGENET1K_V1, BSD-3-Clause" if torchvision else None,
        headline=headline,
        transform=IMAGENET,
    )


_ACCURACY = "ImageNet validation, one crop: top-1 and top-5 {} % (torchvision's IMAGENET1K_V1)"

ENTRIES = (
    _entry(121, (6, 12, 24, 16), 7_978_856, _ACCURACY.format("74.434 and 91.972")),
    _entry(161, (6, 12, 36, 24), 28_681_000, _ACCURACY.format("77.138 and 93.560"), growth=48, stem=96),
    _entry(169, (6, 12, 32, 32), 14_149_480, _ACCURACY.format("75.600 and 92.806")),
    _entry(201, (6, 12, 48, 32), 20_013_928, _ACCURACY.format("76.896 and 93.370")),
    _entry(264, (6, 12, 64, 48), 33_337_704, "ImageNet validation, one crop: top-1 error 22.15 % (the paper)"),
    ModelEntry(
        name="densenet_cifar",
        build=cifar_densenet,
        summary="DenseNet for 32×32 images, of any depth and growth",
        paper="Huang, Liu, van der Maaten, Weinberger, Densely Connected Convolutional Networks, CVPR 2017",
        year=2016,
        parameters=1_019_722,
        dims=(2, 3),
        reference="the paper's section 4.2",
        headline="CIFAR-10 test error, augmented: 5.24 % for 40 layers of growth 12 (the paper's repository)",
        transform=InputTransform(size=32, normalize=MeanStd(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7))),
    ),
)
