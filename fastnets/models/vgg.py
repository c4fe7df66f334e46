"""VGG networks A, A-LRN, B, C, D and E in 2D and 3D, with torchvision's state_dict names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from fastnets.models.entry import ModelEntry
from fastnets.models.layers import he_init, layers, normal_init
from fastnets.models.transform import IMAGENET

# One tuple of channels a block; a negative number is a 1×1 convolution, and a max-pooling ends every block.
Blocks = Sequence[Sequence[int]]
A: Blocks = ((64,), (128,), (256, 256), (512, 512), (512, 512))
B: Blocks = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))
C: Blocks = ((64, 64), (128, 128), (256, 256, -256), (512, 512, -512), (512, 512, -512))
D: Blocks = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
E: Blocks = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


class VGG(nn.Module):
    """Logits of an image or volume: (N, in_channels, [D,] H, W) → (N, num_classes). Any size of 32 or more.

    blocks: A to E of the paper's table 1.
    norm: batch norm after every convolution.
    lrn: local response normalisation after the first convolution, with AlexNet's constants (A-LRN).
    head_depth: depth of the 7×7 grid that the first linear layer reads, in 3D. With 1 the grid is averaged over
        depth, and the linear layers are those of 2D; with 7 they read all of it, and make up nine tenths of
        784 million parameters.

    Paper: Simonyan, Zisserman, "Very Deep Convolutional Networks …" (ICLR 2015, arXiv 1409.1556).
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        blocks: Blocks = D,
        norm: bool = False,
        lrn: bool = False,
        head_depth: int = 1,
    ) -> None:
        super().__init__()
        nd = layers(dims)
        self.features = vgg_features(dims, in_channels, blocks, norm=norm, lrn=lrn)
        grid = (7, 7) if dims == 2 else (head_depth, 7, 7)
        self.avgpool = nd.adaptive_avg_pool(grid)
        self.classifier = nn.Sequential(
            nn.Linear(abs(blocks[-1][-1]) * 49 * (grid[0] if dims == 3 else 1), 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )
        he_init(self)
        normal_init(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


def vgg_features(
    dims: int, in_channels: int, blocks: Blocks, *, norm: bool = False, lrn: bool = False
) -> nn.Sequential:
    """The convolutions of VGG, with a pooling after each block."""
    nd = layers(dims)
    features: list[nn.Module] = []
    i = in_channels
    for block in blocks:
        for channels in block:
            o = abs(channels)
            features.append(nd.conv(i, o, 3, padding=1) if channels > 0 else nd.conv(i, o, 1))
            features += [nd.norm(o), nn.ReLU()] if norm else [nn.ReLU()]
            if lrn and len(features) == 2:
                features.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
            i = o
        features.append(nd.max_pool(2))
    return nn.Sequential(*features)


_PAPER_ERROR = "ImageNet validation, one scale: top-1 and top-5 error {} % (the paper)"
_ACCURACY = "ImageNet validation, one crop: top-1 and top-5 {} % (torchvision's IMAGENET1K_V1)"


def _entry(name: str, letter: str, parameters: int, headline: str, **config: object) -> ModelEntry:
    torchvision = name.removesuffix("_bn") in ("vgg11", "vgg13", "vgg16", "vgg19")
    oxford = "; Oxford's Caffe weights, CC BY 4.0" if name in ("vgg16", "vgg19") else ""
    return ModelEntry(
        name=name,
        build=partial(VGG, **config),  # type: ignore[arg-type]
        summary=f"VGG, configuration {letter}, for classification",
        paper="Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015",
        year=2014,
        parameters=parameters,
        dims=(2, 3),
        reference="torchvision" if torchvision else "the paper's table 1",
        known_weights=f"torchvision IMAGENET1K_V1, BSD-3-Clause{oxford}" if torchvision else None,
        headline=headline,
        transform=IMAGENET,
    )


ENTRIES = (
    _entry("vgg11", "A", 132_863_336, _ACCURACY.format("69.020 and 88.628"), blocks=A),
    _entry("vgg11_bn", "A with batch norm", 132_868_840, _ACCURACY.format("70.370 and 89.810"), blocks=A, norm=True),
    _entry("vgg11_lrn", "A-LRN", 132_863_336, _PAPER_ERROR.format("29.7 and 10.5"), blocks=A, lrn=True),
    _entry("vgg13", "B", 133_047_848, _ACCURACY.format("69.928 and 89.246"), blocks=B),
    _entry("vgg13_bn", "B with batch norm", 133_053_736, _ACCURACY.format("71.586 and 90.374"), blocks=B, norm=True),
    _entry("vgg16", "D", 138_357_544, _ACCURACY.format("71.592 and 90.382"), blocks=D),
    _entry("vgg16_bn", "D with batch norm", 138_365_992, _ACCURACY.format("73.360 and 91.516"), blocks=D, norm=True),
    _entry("vgg16_c", "C", 133_638_952, _PAPER_ERROR.format("27.3 and 8.8"), blocks=C),
    _entry("vgg19", "E", 143_667_240, _ACCURACY.format("72.376 and 90.876"), blocks=E),
    _entry("vgg19_bn", "E with batch norm", 143_678_248, _ACCURACY.format("74.218 and 91.842"), blocks=E, norm=True),
)
