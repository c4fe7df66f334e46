"""Losses for segmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 − the mean soft Dice of the classes other than 0, over the batch as one image.

    logits (N, C, ...) with C ≥ 2, labels (N, ...) of class indices. A class without a pixel in either counts as right.

    Paper: Milletari, Navab, Ahmadi, "V-Net" (3DV 2016); the sums are not squared here.
    """
    probability = logits.softmax(1)
    truth = one_hot(labels, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    axes = [0, *range(2, logits.ndim)]
    overlap = (probability * truth).sum(axes)
    total = (probability + truth).sum(axes)
    dice = (2 * overlap + 1) / (total + 1)
    return 1 - dice[1:].mean()


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, which scores every pixel, plus `dice_loss`, which rare classes do not vanish in."""
    return torch.add(cross_entropy(logits, labels), dice_loss(logits, labels))
