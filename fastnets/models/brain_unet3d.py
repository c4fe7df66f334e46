"""Brain extraction from T1 MRI: the 3D U-Net of deepbrain."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool3d, relu

from fastnets.errors import InputError
from fastnets.io.protocol import ClassInfo
from fastnets.models.entry import ModelEntry
from fastnets.models.recipe import DivideByMax, Recipe

_STRIDE = 8


class BrainUNet3d(nn.Module):
    """Probability that a voxel is brain: (N, 1, X, Y, Z) → (N, 1, X, Y, Z), every side a multiple of 8.

    Three poolings, 8-16-32 channels, no normalisation, a sigmoid at the end. The state_dict names are those
    of the weights file. Raises InputError for other shapes.

    Source: deepbrain 0.1 (Itzcovich 2018), after Çiçek et al., "3D U-Net" (MICCAI 2016).
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [(1, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32), (64, 32), (32, 16), (16, 8)]
        self.conv = nn.ModuleList(nn.Conv3d(i, o, 3, padding=1) for i, o in widths)
        self.conv.append(nn.Conv3d(8, 1, 1))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(i, o, 3, stride=2, bias=False) for i, o in [(32, 32), (32, 16), (16, 8)]
        )

    def forward(self, x: Tensor) -> Tensor:
        _check(x)
        fine = relu(self.conv[1](relu(self.conv[0](x))))
        middle = relu(self.conv[3](relu(self.conv[2](max_pool3d(fine, 2)))))
        coarse = relu(self.conv[5](relu(self.conv[4](max_pool3d(middle, 2)))))
        x = max_pool3d(coarse, 2)
        for level, skip in enumerate((coarse, middle, fine)):
            x = torch.cat((self._upsample(level, x), skip), dim=1)
            x = relu(self.conv[6 + level](x))
        return torch.sigmoid(self.conv[9](x))

    def _upsample(self, level: int, x: Tensor) -> Tensor:
        """Twice the size. The transposed convolution gives 2n + 1, whose last row along every axis goes.

        Dropping it, rather than padding=1 with output_padding=1, is what the weights were trained with: the
        two differ by a shift of one voxel.
        """
        x = self.up[level](x)
        return x[:, :, :-1, :-1, :-1]


def _check(x: Tensor) -> None:
    if x.ndim != 5 or x.shape[1] != 1:
        raise InputError(f"brain_unet3d: the input has shape {tuple(x.shape)}: it must be (N, 1, X, Y, Z)")
    for axis, size in zip("XYZ", x.shape[2:], strict=True):
        if size % _STRIDE or size == 0:
            fit = max(1, -(-size // _STRIDE)) * _STRIDE
            raise InputError(f"brain_unet3d: {axis} = {size} is not a multiple of {_STRIDE}: pad it to {fit}")


ENTRIES = (
    ModelEntry(
        name="brain_unet3d",
        build=BrainUNet3d,
        summary="3D U-Net that separates the brain from the rest of the head in T1 MRI",
        paper="deepbrain 0.1, after Çiçek et al., 3D U-Net, MICCAI 2016",
        year=2018,
        parameters=171_465,
        dims=(3,),
        weights="brain_unet3d.safetensors",
        licence="MIT (deepbrain 0.1)",
        recipe=Recipe(
            axes="XYZ",
            channels=1,
            unit="mm",
            size=(128, 128, 128),
            normalize=DivideByMax(),
            threshold=0.5,
            classes=(ClassInfo(0, "background", (0, 0, 0)), ClassInfo(1, "brain", (230, 120, 60))),
            description="Brain mask of a T1-weighted MRI of a whole head, in any orientation.",
            caution="A demonstration of the pipeline, not a diagnostic network: look at every mask before use.",
        ),
    ),
)
