"""Trains the LeNet-5s on handwritten digits: `python -m fastnets.training.digits`, in a clone.

5,000 digits of MNIST, of which every fifth of each class is held out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, pad

from fastnets.models.lenet import DIGITS
from fastnets.models.registry import create_model

DATA = Path("tests/data/mnist_5k.csv.gz")
SEED = 0
BATCH = 64
RATES = {"lenet5": 4e-3, "lenet5_dense": 4e-3}
# The distances of lenet5 are sums over 84 units: a softmax over them as they are would be certain at once.
SHARPNESS = {"lenet5": 1 / 8, "lenet5_dense": 1.0}


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 32, 32), normalised as the networks want them, and labels (N,)."""

    images: Tensor
    labels: Tensor


def load_digits(path: Path) -> tuple[Digits, Digits]:
    """Training and held-out digits, every fifth of a class, from a table of 784 pixels and the label a row."""
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    pixels, labels = torch.from_numpy(table[:, :784]).reshape(-1, 1, 28, 28), torch.from_numpy(table[:, 784]).long()
    mean, std = DIGITS.normalize.mean[0], DIGITS.normalize.std[0]
    images = (pad(pixels, (2, 2, 2, 2)) - mean) / std
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        held_out[(labels == digit).nonzero()[::5, 0]] = True
    return Digits(images[~held_out], labels[~held_out]), Digits(images[held_out], labels[held_out])


def distorted(images: Tensor, generator: torch.Generator) -> Tensor:
    """The digits turned by up to 10°, scaled by up to 10 % and moved by up to 2 pixels."""
    count = len(images)
    turn, scale, shift_x, shift_y = (2 * torch.rand(4, count, generator=generator) - 1).unbind()
    angle, size = turn * (torch.pi / 18), 1 + 0.1 * scale
    cos, sin = size * angle.cos(), size * angle.sin()
    rows = (torch.stack((cos, -sin, shift_x / 8), 1), torch.stack((sin, cos, shift_y / 8), 1))
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def train(name: str, digits: Digits, *, epochs: int = 20) -> nn.Module:
    """A trained `lenet5` or `lenet5_dense` in evaluation mode; the same one for the same data and torch."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = create_model(name)
    steps = epochs * (len(digits.labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATES[name], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATES[name], total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(digits.labels), generator=generator)
        for batch in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
            logits = model(distorted(digits.images[batch], generator)) * SHARPNESS[name]
            loss = cross_entropy(logits, digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, digits: Digits) -> float:
    """The part of the digits that the model names rightly."""
    with torch.inference_mode():
        return float((model(digits.images).argmax(1) == digits.labels).float().mean())


def main() -> None:
    """Trains a network, writes its weights if asked, and prints its accuracy on the held-out digits."""
    parser = argparse.ArgumentParser(prog="python -m fastnets.training.digits", description=main.__doc__)
    parser.add_argument("--model", choices=sorted(RATES), default="lenet5")
    parser.add_argument("--data", type=Path, default=DATA, help="a table of 784 pixels and the label a row")
    parser.add_argument("--output", type=Path, help="safetensors file for the weights")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of these small layers two threads make less than one")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    digits, held_out = load_digits(arguments.data)
    start = time.perf_counter()
    model = train(arguments.model, digits, epochs=arguments.epochs)
    seconds = time.perf_counter() - start
    if arguments.output:
        save_file(model.state_dict(), arguments.output)
    found = accuracy(model, held_out)
    print(f"{arguments.model}: {found:.2%} of {len(held_out.labels)} held-out digits, trained in {seconds:.0f} s")


if __name__ == "__main__":
    main()
