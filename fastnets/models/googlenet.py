"""GoogLeNet (Inception-v1): the network of the paper, and that with batch norm which torchvision ships."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models.entry import ModelEntry
from fastnets.models.layers import Branches, conv_norm, he_init, layers, named
from fastnets.models.transform import CAFFE_MEAN, CENTRED, InputTransform

# 1×1 | 3×3 after its reduction | 5×5 after its reduction | 1×1 after a pooling: table 1 of the paper.
MODULES = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


class InceptionTrunk(nn.Module):
    """GoogLeNet up to its module 4e, after which `GoogLeNet` and the CAM network differ."""

    def __init__(self, *, dims: int, in_channels: int, variant: str) -> None:
        super().__init__()
        if variant not in ("torchvision", "paper"):
            raise InputError(f"googlenet: variant={variant!r} is not known: pass 'torchvision' or 'paper'")
        self.paper = variant == "paper"
        self.dims = dims
        lrn = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=1.0) if self.paper else nn.Identity
        self.conv1 = self._conv(in_channels, 64, 7, stride=2, padding=3)
        self.maxpool1 = self._pool(3, 2)
        self.lrn1 = lrn()
        self.conv2 = self._conv(64, 64, 1)
        self.conv3 = self._conv(64, 192, 3)
        self.lrn2 = lrn()
        self.maxpool2 = self._pool(3, 2)
        i = self._add_inceptions(192, "3a", "3b")
        self.maxpool3 = self._pool(3, 2)
        self._add_inceptions(i, "4a", "4b", "4c", "4d", "4e")

    def until_4e(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of 4a and 4d, which the auxiliary heads read, and of 4e."""
        x = self.lrn1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.lrn2(self.conv3(self.conv2(x))))
        x = self.maxpool3(self._inceptions(x, "3a", "3b"))
        early = self._inceptions(x, "4a")
        late = self._inceptions(early, "4b", "4c", "4d")
        return early, late, self._inceptions(late, "4e")

    def _inceptions(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(f"inception{name}")(x)
        return x

    def _add_inceptions(self, i: int, *names: str) -> int:
        """Modules on `i` channels; the channels that the last one gives."""
        conv = self._conv
        for name in names:
            one, three, five, projected = MODULES[name]
            branches = Branches(
                branch1=conv(i, one, 1),
                branch2=nn.Sequential(conv(i, three[0], 1), conv(three[0], three[1], 3)),
                branch3=nn.Sequential(conv(i, five[0], 1), conv(five[0], five[1], 5 if self.paper else 3)),
                branch4=nn.Sequential(self._pool(3, 1, 1), conv(i, projected, 1)),
            )
            self.add_module(f"inception{name}", branches)
            i = one + three[1] + five[1] + projected
        return i

    def _conv(self, i: int, o: int, kernel: int, *, stride: int = 1, padding: int | None = None) -> nn.Sequential:
        """With batch norm, or in the paper's variant with a bias."""
        if not self.paper:
            return conv_norm(self.dims, i, o, kernel, stride=stride, padding=padding)
        padding = kernel // 2 if padding is None else padding
        return named(conv=layers(self.dims).conv(i, o, kernel, stride, padding), relu=nn.ReLU())

    def _pool(self, kernel: int, stride: int, padding: int = 0) -> nn.Module:
        return layers(self.dims).max_pool(kernel, stride, padding, ceil_mode=True)  # type: ignore[no-any-return]


class GoogLeNet(InceptionTrunk):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size of 32 or more.

    variant: "torchvision" has batch norm and no response normalisation, and its "5×5" branches are 3×3; "paper"
        has biases, LRN with Caffe's constants, and 5×5.
    aux: also builds the two auxiliary classifiers, whose input must be 14×14 (a picture of 224×224). In training
        mode the result is then (logits, those of the head after 4a, those of the head after 4d), the losses of
        which the paper weights by 1, 0.3 and 0.3.

    Paper: Szegedy et al., "Going deeper with convolutions" (CVPR 2015). Raises InputError for another variant.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        variant: Literal["torchvision", "paper"] = "torchvision",
        aux: bool = False,
    ) -> None:
        super().__init__(dims=dims, in_channels=in_channels, variant=variant)
        nd = layers(dims)
        self.maxpool4 = self._pool(3 if self.paper else 2, 2)
        i = self._add_inceptions(832, "5a", "5b")
        self.aux1 = self._auxiliary(512, num_classes) if aux else None
        self.aux2 = self._auxiliary(528, num_classes) if aux else None
        self.avgpool = nd.adaptive_avg_pool(1)
        self.dropout = nn.Dropout(0.4 if self.paper else 0.2)
        self.fc = nn.Linear(i, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        early, late, x = self.until_4e(x)
        x = self._inceptions(self.maxpool4(x), "5a", "5b")
        logits: Tensor = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return logits, self.aux1(early), self.aux2(late)
        return logits

    def _auxiliary(self, i: int, num_classes: int) -> _AuxiliaryHead:
        nd = layers(self.dims)
        pool = nd.avg_pool(5, 3) if self.paper else nd.adaptive_avg_pool(4)
        return _AuxiliaryHead(pool, self._conv(i, 128, 1), self.dims, num_classes)


class _AuxiliaryHead(nn.Module):
    """4×4 average pooling, a 1×1 convolution, two linear layers."""

    def __init__(self, pool: nn.Module, conv: nn.Module, dims: int, num_classes: int) -> None:
        super().__init__()
        self.pool, self.conv = pool, conv
        self.fc1 = nn.Linear(128 * 4**dims, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc1(self.conv(self.pool(x)).flatten(1)))
        return self.fc2(self.dropout(x))  # type: ignore[no-any-return]


_PAPER = "Szegedy et al., Going deeper with convolutions, CVPR 2015"

ENTRIES = (
    ModelEntry(
        name="googlenet",
        build=GoogLeNet,
        summary="GoogLeNet (Inception-v1) with batch norm, for classification",
        paper=_PAPER,
        year=2014,
        parameters=6_624_904,
        dims=(2, 3),
        reference="torchvision",
        known_weights="torchvision IMAGENET1K_V1, BSD-3-Clause (layout='torchvision' where aux=False)",
        headline="ImageNet validation, one crop: top-1 and top-5 69.778 and 89.530 % (torchvision's IMAGENET1K_V1)",
        transform=InputTransform(size=224, resize=256, normalize=CENTRED),
    ),
    ModelEntry(
        name="googlenet_2014",
        build=partial(GoogLeNet, variant="paper"),
        summary="GoogLeNet (Inception-v1) of the paper: 5×5, response normalisation, biases, for classification",
        paper=_PAPER,
        year=2014,
        parameters=6_998_552,
        dims=(2, 3),
        reference="the paper; Caffe's bvlc_googlenet",
        known_weights="Caffe's bvlc_googlenet, unrestricted use (layout='caffe')",
        headline="ImageNet validation, centre crop: top-1 and top-5 68.7 and 88.9 % (Caffe's bvlc_googlenet)",
        transform=InputTransform(size=224, resize=256, normalize=CAFFE_MEAN, order="bgr"),
    ),
)
