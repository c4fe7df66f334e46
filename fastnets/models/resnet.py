"""Residual networks in 2D and 3D, with torchvision's state_dict names.

Papers: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016, arXiv 1512.03385).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import pad

from fastnets.errors import InputError
from fastnets.models.entry import ModelEntry
from fastnets.models.layers import he_init, layers
from fastnets.models.recipe import MeanStd
from fastnets.models.transform import IMAGENET, InputTransform


class BasicBlock(nn.Module):
    """Two 3-wide convolutions and the identity, projected (option B of the paper) where the shape changes.

    project: False subsamples and pads with zero channels instead (option A), which has no parameters.
    """

    expansion = 1

    def __init__(self, dims: int, i: int, width: int, *, stride: int, project: bool = True) -> None:
        super().__init__()
        nd = layers(dims)
        self.conv1 = nd.conv(i, width, 3, stride, 1, bias=False)
        self.bn1 = nd.norm(width)
        self.conv2 = nd.conv(width, width, 3, padding=1, bias=False)
        self.bn2 = nd.norm(width)
        self.relu = nn.ReLU()
        self.downsample = (_shortcut if project else _zero_shortcut)(dims, i, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + (x if self.downsample is None else self.downsample(x))
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1-3-1-wide convolutions and the identity, projected where the shape changes."""

    expansion = 4

    def __init__(self, dims: int, i: int, width: int, *, stride: int, stride_in_1x1: bool = False) -> None:
        super().__init__()
        nd = layers(dims)
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nd.conv(i, width, 1, first, bias=False)
        self.bn1 = nd.norm(width)
        self.conv2 = nd.conv(width, width, 3, second, 1, bias=False)
        self.bn2 = nd.norm(width)
        self.conv3 = nd.conv(width, 4 * width, 1, bias=False)
        self.bn3 = nd.norm(4 * width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(dims, i, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x))
        return self.relu(out)  # type: ignore[no-any-return]


def _shortcut(dims: int, i: int, o: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and i == o:
        return None
    nd = layers(dims)
    return nn.Sequential(nd.conv(i, o, 1, stride, bias=False), nd.norm(o))


def _zero_shortcut(dims: int, i: int, o: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and i == o:
        return None
    return nn.Sequential(layers(dims).max_pool(1, stride), _ZeroChannels(o - i))


class _ZeroChannels(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return pad(x, (0, 0) * (x.ndim - 2) + (0, self.count))


class ResNet(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size of 32 or more.

    blocks: residual blocks in each of four stages.
    bottleneck: 1-3-1 blocks, those of 50 layers and more.
    stride_in_1x1: bottlenecks stride in their first convolution, as the paper and its Caffe weights do, instead of
        in the 3-wide one, as torchvision and timm do ("v1.5").
    stem_stride: of the first convolution; MONAI's networks have 1.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        bottleneck: bool = False,
        stride_in_1x1: bool = False,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        nd = layers(dims)
        block = partial(Bottleneck, stride_in_1x1=stride_in_1x1) if bottleneck else BasicBlock
        expansion = Bottleneck.expansion if bottleneck else BasicBlock.expansion
        self.conv1 = nd.conv(in_channels, 64, 7, stem_stride, 3, bias=False)
        self.bn1 = nd.norm(64)
        self.relu = nn.ReLU()
        self.maxpool = nd.max_pool(3, 2, 1)
        i = 64
        for stage, count in enumerate(blocks):
            width, stage_blocks = 64 << stage, nn.Sequential()
            for n in range(count):
                stage_blocks.append(block(dims, i, width, stride=2 if stage and n == 0 else 1))
                i = expansion * width
            self.add_module(f"layer{stage + 1}", stage_blocks)
        self.avgpool = nd.adaptive_avg_pool(1)
        self.fc = nn.Linear(i, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


class CifarResNet(nn.Module):
    """The paper's network for 32×32 images: three stages of 16, 32 and 64 channels, parameter-free shortcuts.

    depth: 6n + 2 layers: 20, 32, 44, 56, 110 or 1202 in the paper. Input (N, in_channels, [D,] H, W) of any size.
    Raises InputError for another depth.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 10, depth: int = 20) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"resnet_cifar: depth={depth} is not 6n + 2: pass 20, 32, 44, 56, 110 or 1202")
        nd = layers(dims)
        self.conv1 = nd.conv(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nd.norm(16)
        self.relu = nn.ReLU()
        i = 16
        for stage in range(3):
            width, stage_blocks = 16 << stage, nn.Sequential()
            for n in range(depth // 6):
                stage_blocks.append(BasicBlock(dims, i, width, stride=2 if stage and n == 0 else 1, project=False))
                i = width
            self.add_module(f"layer{stage + 1}", stage_blocks)
        self.avgpool = nd.adaptive_avg_pool(1)
        self.fc = nn.Linear(64, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


def _entry(depth: int, blocks: tuple[int, ...], parameters: int, accuracy: str) -> ModelEntry:
    return ModelEntry(
        name=f"resnet{depth}",
        build=partial(ResNet, blocks=blocks, bottleneck=depth >= 50),
        summary=f"residual network of {depth} layers, for classification",
        paper="He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016",
        year=2015,
        parameters=parameters,
        dims=(2, 3),
        reference="torchvision (stride in the 3×3); stride_in_1x1=True is the paper's",
        known_weights="torchvision IMAGENET1K_V1, BSD-3-Clause; timm, Apache-2.0",
        headline=f"ImageNet validation, one crop: top-1 and top-5 {accuracy} % (torchvision's IMAGENET1K_V1)",
        transform=IMAGENET,
    )


ENTRIES = (
    _entry(18, (2, 2, 2, 2), 11_689_512, "69.758 and 89.078"),
    _entry(34, (3, 4, 6, 3), 21_797_672, "73.314 and 91.420"),
    _entry(50, (3, 4, 6, 3), 25_557_032, "76.130 and 92.862"),
    _entry(101, (3, 4, 23, 3), 44_549_160, "77.374 and 93.546"),
    _entry(152, (3, 8, 36, 3), 60_192_808, "78.312 and 94.046"),
    ModelEntry(
        name="resnet_cifar",
        build=CifarResNet,
        summary="residual network for 32×32 images, of depth=20 to 1202 layers",
        paper="He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016",
        year=2015,
        parameters=269_722,
        dims=(2, 3),
        reference="the paper's section 4.2, option A",
        headline="CIFAR-10 test error of 20 layers 8.75 %, of 110 layers 6.43 % (the paper)",
        transform=InputTransform(
            size=32, normalize=MeanStd(mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)), interpolation="bilinear"
        ),
    ),
)
