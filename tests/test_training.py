"""The slide demonstration: its labels, its loss, its training, and what its committed weights reach."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastnets.models.registry import create_model
from fastnets.training.losses import dice_loss

for package in ("skimage", "tifffile", "imagecodecs"):
    pytest.importorskip(package)

from fastnets.training import demo  # noqa: E402  needs the packages above
from fastnets.training.stain import jitter_stains  # noqa: E402


def test_nuclei_demo_agrees_with_the_labels_of_the_held_out_region() -> None:
    _, (held_out, truth) = demo.load_data(Path(__file__).parent / "data")
    score = demo.iou(demo.segment(create_model("nuclei_demo", pretrained=True), held_out), truth)
    print(f"nuclei_demo: IoU {score:.4f}")
    assert score >= 0.74


def test_training_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 256, (144, 160, 3), dtype=np.uint8), rng.random((144, 160)) < 0.1) for _ in range(2)]
    first, second = (demo.train(images, steps=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert first["inc.double_conv.1.num_batches_tracked"] == 3


def test_dice_loss() -> None:
    labels = torch.tensor([[0, 1, 1, 0]])
    sure = 100.0 * torch.nn.functional.one_hot(labels, 2).movedim(-1, 1)
    assert dice_loss(sure, labels) == pytest.approx(0, abs=1e-6)
    assert dice_loss(-sure, labels) == pytest.approx(1 - 1 / 5)  # no overlap, 2 + 2 pixels, smoothed by 1
    assert dice_loss(100.0 * torch.tensor([[[1, 1, 1, 1], [0, 0, 0, 0]]]), torch.zeros_like(labels)) == pytest.approx(0)


def test_stains_vary_only_as_far_as_asked() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(jitter_stains(rgb, rng, strength=0), rgb, atol=1e-2)
    white = np.full((2, 2, 3), 255, np.uint8)
    np.testing.assert_allclose(jitter_stains(white, rng), white, atol=1e-3)
    assert np.abs(jitter_stains(rgb, rng) - rgb).mean() > 1
