"""The networks of bench/gpu_models.py: those in which cuDNN's weak spots meet, and two of its strong ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from model_zoo import DilatedContext, MeshNet
from torch import Tensor, nn

from fastnets.models.registry import create_model


class InstanceUNet(nn.Module):
    """A 3D U-Net as nnU-Net builds it (Isensee et al., 2021): instance norm, leaky ReLU, strided convolutions."""

    def __init__(self, width: int = 32, depth: int = 4, classes: int = 4) -> None:
        super().__init__()
        widths = [min(width << level, 320) for level in range(depth + 1)]

        def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i, s in ((inputs, stride), (outputs, 1)):
                layers += [nn.Conv3d(i, outputs, 3, s, 1), nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01)]
            return nn.Sequential(*layers)

        pairs = list(pairwise(widths))
        self.encoder = nn.ModuleList([block(1, width), *(block(a, b, 2) for a, b in pairs)])
        self.ups = nn.ModuleList([nn.ConvTranspose3d(b, a, 2, 2) for a, b in reversed(pairs)])
        self.decoder = nn.ModuleList([block(2 * a, a) for a, _ in reversed(pairs)])
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], 1))
        y: Tensor = self.head(x)
        return y


@dataclass(frozen=True)
class Network:
    """`shape` of one image (C, *spatial); `small`, with a network that `build` makes of True, for the check."""

    name: str
    shape: tuple[int, ...]
    small: tuple[int, ...]
    build: Callable[[bool], nn.Module]

    def model(self, *, small: bool) -> nn.Module:
        """In eval mode, channels-last, float32 on the CPU; activations keep their scale from layer to layer."""
        torch.manual_seed(0)
        model = self.build(small).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
        return model.to(memory_format=memory_format(self.shape))  # type: ignore[call-overload]

    def image(self, batch: int, *, small: bool) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, *(self.small if small else self.shape), generator=generator)


def memory_format(shape: tuple[int, ...]) -> torch.memory_format:
    """Channels last, of (C, *spatial)."""
    return torch.channels_last if len(shape) == 3 else torch.channels_last_3d


def _part(name: str, part: Callable[[nn.Module], nn.Module]) -> Callable[[bool], nn.Module]:
    """A network of fastnets; `part` of it is what the check runs."""
    return lambda small: part(create_model(name)) if small else create_model(name)


NETWORKS = [
    Network("3d unet instance norm", (1, 96, 96, 96), (1, 2, 4, 4), lambda s: InstanceUNet(*(4, 1) if s else (32, 4))),
    Network("mobilenet_v2", (3, 224, 224), (3, 5, 6), _part("mobilenet_v2", lambda m: m.get_submodule("features")[:3])),
    Network("xception", (3, 299, 299), (64, 4, 4), _part("xception", lambda m: m.get_submodule("block1"))),
    Network("meshnet", (1, 96, 96, 96), (1, 4, 5, 6), lambda s: MeshNet(5 if s else 21)),
    Network("dilated context", (3, 512, 512), (3, 6, 7), lambda s: DilatedContext(8 if s else 64)),
    Network(
        "unet 2d", (3, 512, 512), (3, 4, 4), lambda s: create_model("unet", **{"width": 4, "depth": 2} if s else {})
    ),
    Network("resnet50", (3, 224, 224), (64, 3, 4), _part("resnet50", lambda m: m.get_submodule("layer1")[:2])),
]
