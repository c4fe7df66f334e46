"""The LeNet-5s trained on real digits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from fastnets.training import digits

DATA = Path(__file__).parent / "data" / "mnist_5k.csv.gz"


def test_every_fifth_digit_of_a_class_is_held_out() -> None:
    train, held_out = digits.load_digits(DATA)
    assert train.images.shape == (4000, 1, 32, 32)
    assert torch.bincount(held_out.labels).tolist() == [100] * 10
    assert float(train.images.min()) == pytest.approx(-0.1)
    assert float(train.images.max()) == pytest.approx(1.175)


def test_distortions_keep_the_digit() -> None:
    train, _ = digits.load_digits(DATA)
    images = train.images[:200]
    moved = digits.distorted(images, torch.Generator().manual_seed(0))
    ink = (moved + 0.1).sum((1, 2, 3)) / (images + 0.1).sum((1, 2, 3))
    assert 0.75 < float(ink.min()) <= float(ink.max()) < 1.35
    assert not torch.allclose(moved, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(digits.RATES))
def test_lenet5_reads_digits(name: str) -> None:
    train, held_out = digits.load_digits(DATA)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of these small layers two threads make less than one
    start = time.process_time()  # the seconds of an idle processor, whatever else runs
    try:
        model = digits.train(name, train)
    finally:
        torch.set_num_threads(before)
    seconds = time.process_time() - start
    found = digits.accuracy(model, held_out)
    print(f"{name}: {found:.2%} of {len(held_out.labels)} held-out digits, trained in {seconds:.0f} s")
    assert found >= 0.97
    assert seconds < 120
