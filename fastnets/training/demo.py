"""Trains `nuclei_demo` in minutes on two cores: `python -m fastnets.training.demo`, in a clone with `[all]` installed.

The labels come from `stain.nuclei_labels`, not from people: the score says how well the network imitates
them, not how well it finds nuclei. The lower third of the slide is held out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fastnets.models.nuclei_demo import NORMALIZE
from fastnets.models.registry import create_model, get_entry, weights_path
from fastnets.training.losses import segmentation_loss
from fastnets.training.stain import jitter_stains, nuclei_labels

Labelled = tuple[NDArray[np.uint8], NDArray[np.bool_]]

SEED = 0
STEPS = 900
BATCH = 8
PATCH = 128  # px, a multiple of the stride of the network
RATE = 5e-3
TRAIN_ROWS = slice(0, 1920)
HELD_OUT_ROWS = slice(1984, 2960)  # 64 rows apart, more than the labels look around themselves

METADATA = {
    "model": "nuclei_demo",
    "labels": "automatic: colour deconvolution and thresholds (fastnets.training.stain)",
    "data": "OpenSlide CMU-1-Small-Region, rows 0-1919 (CC0); StarDist histo.jpg (BSD-3-Clause)",
    "licence": "Apache-2.0",
    "caution": "a demonstration, not a diagnostic network",
}


def load_data(folder: Path) -> tuple[list[Labelled], Labelled]:
    """The training images and the held-out region, with their labels, from the folder of the test data."""
    slide = tifffile.imread(folder / "cmu_small_region.svs", key=0)
    image = np.asarray(Image.open(folder / "histo.jpg").convert("RGB"))
    labels = nuclei_labels(slide)
    train = [(slide[TRAIN_ROWS], labels[TRAIN_ROWS]), (image, nuclei_labels(image))]
    columns = slice(0, slide.shape[1] // 8 * 8)
    return train, (slide[HELD_OUT_ROWS, columns], labels[HELD_OUT_ROWS, columns])


def normalize(rgb: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    """RGB (H, W, 3) on the 0..255 scale → (3, H, W), as the recipe of the network says."""
    mean, std = np.asarray(NORMALIZE.mean, np.float32), np.asarray(NORMALIZE.std, np.float32)
    return torch.from_numpy((rgb.astype(np.float32) - mean) / std).movedim(-1, 0)


def iou(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; Dice is 2·IoU / (1 + IoU)."""
    return float((prediction & truth).sum() / (prediction | truth).sum())


def segment(model: nn.Module, rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the model sees nuclei in an image (H, W, 3) whose sides are multiples of its stride."""
    with torch.inference_mode():
        mask: NDArray[np.bool_] = model(normalize(rgb)[None]).argmax(1)[0].numpy() == 1
    return mask


def train(images: list[Labelled], *, steps: int = STEPS) -> nn.Module:
    """A trained network in evaluation mode; the same one for the same data, torch and processor."""
    torch.manual_seed(SEED)
    model = create_model("nuclei_demo")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    start, total = time.perf_counter(), 0.0
    for step, (patches, labels) in enumerate(_batches(images, steps), 1):
        loss = segmentation_loss(model(patches), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 50 == 0:
            print(f"step {step}/{steps}  loss {total / 50:.3f}  {time.perf_counter() - start:.0f} s", flush=True)
            total = 0.0
    return model.eval()


def _batches(images: list[Labelled], steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(SEED)
    nuclei = [np.argwhere(labels) for _, labels in images]
    for _ in range(steps):
        pairs = [_patch(images, nuclei, rng) for _ in range(BATCH)]
        patches, labels = zip(*pairs, strict=True)
        yield torch.stack(patches), torch.stack(labels)


def _patch(images: list[Labelled], nuclei: list[NDArray[np.intp]], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A patch, half the time around a nucleus and half anywhere, turned, mirrored and stained at random."""
    which = int(rng.random() < 0.25)  # the second image is small
    rgb, labels = images[which]
    room = np.array(labels.shape) - PATCH
    if rng.random() < 0.5:
        corner = np.clip(rng.choice(nuclei[which]) - PATCH // 2, 0, room)
    else:
        corner = rng.integers(0, room, endpoint=True)
    window = tuple(slice(c, c + PATCH) for c in corner)
    image, truth = jitter_stains(rgb[window], rng), labels[window]
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    image, truth = np.rot90(image, turns), np.rot90(truth, turns)
    if mirror:
        image, truth = image[::-1], truth[::-1]
    return normalize(image), torch.from_numpy(truth.astype(np.int64))


def main() -> None:
    """Trains, writes the weights, prints the agreement with the labels of the held-out region."""
    parser = argparse.ArgumentParser(prog="python -m fastnets.training.demo", description=main.__doc__)
    parser.add_argument("--data", type=Path, default=Path("tests/data"), help="folder with the slide and the image")
    parser.add_argument("--output", type=Path, default=weights_path(get_entry("nuclei_demo")))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    images, (held_out, truth) = load_data(arguments.data)
    model = train(images)
    save_file(model.state_dict(), arguments.output, metadata=METADATA)
    score = iou(segment(model, held_out), truth)
    print(f"held-out region: IoU {score:.4f}, Dice {2 * score / (1 + score):.4f}; weights in {arguments.output}")


if __name__ == "__main__":
    main()
