"""AlexNet: the network of 2012 with two towers, and the one-tower network of 2014 that torchvision ships."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models.entry import ModelEntry
from fastnets.models.layers import layers, normal_init
from fastnets.models.transform import CAFFE_MEAN, IMAGENET, InputTransform


class AlexNet(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size of 63 or more.

    One tower, no response normalisation; torchvision's names and outputs.

    head_depth: depth of the 6×6 grid that the first linear layer reads, in 3D; see `fastnets.models.vgg.VGG`.

    Paper: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997).
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000, head_depth: int = 1) -> None:
        super().__init__()
        nd = layers(dims)
        self.features = nn.Sequential(
            nd.conv(in_channels, 64, 11, 4, 2),
            nn.ReLU(),
            nd.max_pool(3, 2),
            nd.conv(64, 192, 5, padding=2),
            nn.ReLU(),
            nd.max_pool(3, 2),
            nd.conv(192, 384, 3, padding=1),
            nn.ReLU(),
            nd.conv(384, 256, 3, padding=1),
            nn.ReLU(),
            nd.conv(256, 256, 3, padding=1),
            nn.ReLU(),
            nd.max_pool(3, 2),
        )
        self.avgpool = nd.adaptive_avg_pool((6, 6) if dims == 2 else (head_depth, 6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 36 * (head_depth if dims == 3 else 1), 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


class AlexNet2012(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). The paper's input is 227×227.

    Two towers, which are convolutions in two groups, and local response normalisation (LRN).

    variant: "paper", whose LRN does not divide α by its size, as torch and Caffe do (so torch's α is 5·10⁻⁴, and
        k = 2); "bvlc" for the weights of Caffe's bvlc_alexnet (α 10⁻⁴, k = 1); "caffenet" for those of its
        bvlc_reference_caffenet, which also pools before the LRN.
    head_depth: depth of the 6×6 grid that the first linear layer reads, in 3D; see `fastnets.models.vgg.VGG`.

    Paper: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks"
    (NIPS 2012). Raises InputError for another variant.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        variant: Literal["paper", "bvlc", "caffenet"] = "paper",
        head_depth: int = 1,
    ) -> None:
        super().__init__()
        if variant not in ("paper", "bvlc", "caffenet"):
            raise InputError(f"alexnet_2012: variant={variant!r} is not known: pass 'paper', 'bvlc' or 'caffenet'")
        nd = layers(dims)

        def norm_and_pool() -> tuple[nn.Module, nn.Module]:
            alpha, k = (5e-4, 2.0) if variant == "paper" else (1e-4, 1.0)
            norm, pool = nn.LocalResponseNorm(5, alpha=alpha, beta=0.75, k=k), nd.max_pool(3, 2)
            return (pool, norm) if variant == "caffenet" else (norm, pool)

        self.features = nn.Sequential(
            nd.conv(in_channels, 96, 11, 4),
            nn.ReLU(),
            *norm_and_pool(),
            nd.conv(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            *norm_and_pool(),
            nd.conv(256, 384, 3, padding=1),
            nn.ReLU(),
            nd.conv(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nd.conv(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nd.max_pool(3, 2),
        )
        self.avgpool = nd.adaptive_avg_pool((6, 6) if dims == 2 else (head_depth, 6, 6))
        self.classifier = nn.Sequential(
            nn.Linear(256 * 36 * (head_depth if dims == 3 else 1), 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )
        normal_init(self)
        # The paper starts these with positive inputs to their rectifiers.
        for layer in (self.features[n] for n in (4, 10, 12)):
            nn.init.ones_(layer.bias)  # type: ignore[arg-type]
        for layer in (self.classifier[n] for n in (0, 3)):
            nn.init.ones_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


ENTRIES = (
    ModelEntry(
        name="alexnet",
        build=AlexNet,
        summary="AlexNet with one tower, for classification",
        paper="Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997",
        year=2014,
        parameters=61_100_840,
        dims=(2, 3),
        reference="torchvision",
        known_weights="torchvision IMAGENET1K_V1, BSD-3-Clause",
        headline="ImageNet validation, one crop: top-1 and top-5 56.522 and 79.066 % (torchvision's IMAGENET1K_V1)",
        transform=IMAGENET,
    ),
    ModelEntry(
        name="alexnet_2012",
        build=AlexNet2012,
        summary="AlexNet with two towers and local response normalisation, for classification",
        paper="Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, "
        "NIPS 2012",
        year=2012,
        parameters=60_965_224,
        dims=(2, 3),
        reference="the paper; Caffe's bvlc_alexnet and bvlc_reference_caffenet (variant=)",
        known_weights="Caffe's bvlc_alexnet and bvlc_reference_caffenet, unrestricted use (layout='caffe')",
        headline="ImageNet validation, ten crops: top-1 and top-5 error 40.7 and 18.2 % (the paper)",
        transform=InputTransform(size=227, resize=256, normalize=CAFFE_MEAN, order="bgr"),
    ),
)
