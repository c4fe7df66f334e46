"""2.5D: three orthogonal planes through a point as the channels of a picture, and a decision from many such views.

Papers: Roth et al., "A New 2.5D Representation for Lymph Node Detection …" (MICCAI 2014, arXiv 1406.2639);
Roth et al., "Improving Computer-aided Detection using Convolutional Neural Networks and Random View Aggregation"
(IEEE TMI 2016, arXiv 1505.03046).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import tau

import torch
from torch import Tensor, nn

from fastnets.errors import InputError
from fastnets.models.entry import ModelEntry
from fastnets.models.layers import he_init
from fastnets.ops.grid_sample import grid_sample

# Rows and columns of the axial, coronal and sagittal planes, as axes of (D, H, W).
_PLANES = ((1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, kw_only=True)
class OrthogonalViews:
    """Views of a point: scales × translations × rotations of them, each the three planes through it.

    side: pixels of a view.
    scales: width of a view, in the unit of `spacing`.
    translations, shift: random shifts of at most `shift` in every direction, in the unit of `spacing`.
    rotations: by a random angle around a random axis, of all three planes together. The papers differ in how they
        make 100 views; the default is 4 × 5 × 5.
    """

    side: int = 32
    scales: tuple[float, ...] = (30.0, 35.0, 40.0, 45.0)
    translations: int = 5
    shift: float = 3.0
    rotations: int = 5

    def __len__(self) -> int:
        return len(self.scales) * self.translations * self.rotations

    def plain(self, volume: Tensor, centre: Tensor, *, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
        """One view of each scale, neither shifted nor turned: (scales, 3, side, side); see `sample`."""
        count = len(self.scales)
        frames = torch.eye(3).expand(count, 3, 3)
        return self._resample(volume, centre, spacing, torch.tensor(self.scales), torch.zeros(count, 3), frames)

    def sample(
        self,
        volume: Tensor,
        centre: Tensor,
        *,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The views of a point, (views, 3, side, side): axial, coronal and sagittal; what lies outside is 0.

        volume: (D, H, W), floating point. centre: (z, y, x) in voxels. spacing: of the voxels along D, H and W.
        Raises InputError for other shapes.
        """
        count = len(self)
        scales = torch.tensor(self.scales).repeat_interleave(self.translations * self.rotations)
        shifts = self.shift * (2 * torch.rand(len(self.scales), self.translations, 1, 3, generator=generator) - 1)
        shifts = shifts.expand(-1, -1, self.rotations, -1).reshape(count, 3)
        return self._resample(volume, centre, spacing, scales, shifts, random_rotations(count, generator=generator))

    def _resample(
        self,
        volume: Tensor,
        centre: Tensor,
        spacing: tuple[float, float, float],
        scales: Tensor,
        shifts: Tensor,
        frames: Tensor,
    ) -> Tensor:
        """All views of all planes in one call of one kernel."""
        if volume.ndim != 3 or centre.shape != (3,):
            shapes = f"volume {tuple(volume.shape)} and centre {tuple(centre.shape)}"
            raise InputError(f"OrthogonalViews: {shapes}: pass (D, H, W) and (3,)")
        steps = (torch.arange(self.side) + 0.5) / self.side - 0.5
        offsets = torch.zeros(3, self.side, self.side, 3)
        for plane, (rows, columns) in enumerate(_PLANES):
            offsets[plane, :, :, rows] = steps[:, None]
            offsets[plane, :, :, columns] = steps
        # Physical positions around the centre, then voxels, then grid_sample's [-1, 1] from edge to edge.
        positions = torch.einsum("prca,vba->vprcb", offsets, frames) * scales.view(-1, 1, 1, 1, 1)
        positions = (positions + shifts.view(-1, 1, 1, 1, 3)) / torch.tensor(spacing)
        positions = positions + centre.to(positions)
        size = torch.tensor(volume.shape, dtype=positions.dtype)
        grid = ((2 * positions + 1) / size - 1).flip(-1).reshape(1, -1, self.side, self.side, 3)
        out: Tensor = grid_sample(volume[None, None], grid.to(volume))
        return out.reshape(len(scales), 3, self.side, self.side)


def random_rotations(count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Rotation matrices (count, 3, 3): any angle, around axes that are uniform on the sphere (Rodrigues' formula)."""
    axis = nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    angle = tau * torch.rand(count, 1, 1, generator=generator)
    cross = torch.linalg.cross(axis[:, None].expand(-1, 3, -1), torch.eye(3).expand(count, 3, 3), dim=2).mT
    rotations: Tensor = torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross
    return rotations


class RandomViewAggregation(nn.Module):
    """Probabilities of points in a volume: the mean of a 2D network's softmax over the views of each.

    forward: volume (D, H, W), centres (points, 3) in voxels → (points, classes).
    """

    def __init__(self, model: nn.Module, views: OrthogonalViews | None = None) -> None:
        super().__init__()
        self.model, self.views = model, views or OrthogonalViews()

    def forward(
        self,
        volume: Tensor,
        centres: Tensor,
        *,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        means = [
            self.model(self.views.sample(volume, centre, spacing=spacing, generator=generator)).softmax(1).mean(0)
            for centre in centres
        ]
        return torch.stack(means)


class LocallyConnected(nn.Module):
    """A 3×3 "same" layer whose weights differ from place to place: (N, i, side, side) → (N, o, side, side)."""

    def __init__(self, i: int, o: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(side * side, o, 9 * i) * (2 / (9 * i)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(o, side * side))
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.unfold(x, 3, padding=1)
        out = torch.einsum("nkp,pok->nop", patches, self.weight) + self.bias
        return out.reshape(*out.shape[:2], self.side, self.side)


class DropConnect(nn.Linear):
    """A linear layer that loses half of its weights, at random, in training (Wan et al., ICML 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, nn.functional.dropout(self.weight, 0.5, self.training), self.bias)


class RothNet(nn.Module):
    """Logits of a 2.5D view: (N, in_channels, 32, 32) → (N, num_classes).

    Two convolutions with poolings, two locally connected layers, and a DropConnect layer, as the papers say. They
    give no widths but the first's 64; the others are those of the cuda-convnet network that they build on.

    Raises InputError for other image sizes.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.local3 = LocallyConnected(64, 64, 8)
        self.local4 = LocallyConnected(64, 32, 8)
        self.fc = DropConnect(32 * 64, num_classes)
        self.relu = nn.ReLU()
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (32, 32):
            raise InputError(f"roth_25d: the image is {tuple(x.shape[2:])}: sample views of 32×32")
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.local4(self.relu(self.local3(x))))
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]


ENTRIES = (
    ModelEntry(
        name="roth_25d",
        build=RothNet,
        summary="2.5D classifier of points in volumes, for RandomViewAggregation",
        paper="Roth et al., A New 2.5D Representation for Lymph Node Detection, MICCAI 2014",
        year=2014,
        parameters=3_656_514,
        dims=(2,),
        reference="the papers' description; widths after cuda-convnet",
        headline="abdominal lymph nodes: 83 % sensitivity at 3 false positives a volume (the paper)",
    ),
)
