"""Networks with steps that torch runs, and what export leaves in a graph beside operations."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import threading

import torch
from harness import relative_error, thread_count
from torch import Tensor, nn

from fastnets.engine import optimize


class Sorted(nn.Module):
    """Sorted pixels between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.before(x).relu().sort(-1).values)
        return y


def image(size: int) -> Tensor:
    return torch.randn(1, 8, size, size, generator=torch.Generator().manual_seed(1))


def test_callers_at_the_same_time() -> None:
    """On OpenMP's threads, of which each caller has its own, or on the pool's, which one of them has."""
    model = Sorted().eval()
    optimized, exact = optimize(model, image(64)), copy.deepcopy(model).double()
    inputs = [image(64) + i for i in range(4)]
    errors: list[float] = []

    def run(x: Tensor) -> None:
        with torch.inference_mode():
            expected = exact(x.double())
            errors.extend(relative_error(optimized(x), expected) for _ in range(20))

    threads = [threading.Thread(target=run, args=(x,)) for x in inputs]
    with thread_count(2):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(errors) == 80
    assert max(errors) <= 1e-5


def test_threads_that_come_late_write_to_no_other_step() -> None:
    """On OpenMP's threads, of which other processes take the cores: whoever was off its core is steps behind."""
    torch.manual_seed(0)
    widths = [8, 24, 16, 48, 8, 32, 16, 64, 8]
    pairs = [(nn.Conv2d(a, a, 3, 1, 1, groups=a), nn.Conv2d(a, b, 1)) for a, b in itertools.pairwise(widths)]
    model, x = nn.Sequential(*itertools.chain(*pairs)).eval(), image(14)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with thread_count(2), torch.inference_mode():
            optimized, exact = optimize(model, x), copy.deepcopy(model).double()
            expected, values = exact(x.double()), torch.ones(1 << 17)
            for _ in range(1000):
                values.add_(1)
                assert relative_error(optimized(x), expected) <= 1e-5
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_explain_times_every_step() -> None:
    explanation = optimize(Sorted().eval(), image(64)).explain(runs=2)
    assert len(explanation.rows) == 4
    assert all(row.ms > 0 for row in explanation.rows)


class Doubles(nn.Module):
    """Constants of other dtypes, whose results torch promotes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("doubles", torch.linspace(1, 2, 8, dtype=torch.float64))
        self.register_buffer("whole_numbers", torch.arange(1, 9))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        column = self.doubles[:, None, None]
        return (
            x + self.doubles,
            x * column,
            x / self.whole_numbers,
            x - self.whole_numbers,
            x * self.doubles[0],
            (x - column).relu(),
        )


def test_constants_of_other_dtypes() -> None:
    model, x = Doubles().eval(), image(8)
    with torch.inference_mode():
        for actual, expected in zip(optimize(model, x)(x), model(x), strict=True):
            assert actual.dtype == expected.dtype
            assert relative_error(actual, expected) <= 1e-6


class Asserting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.ops.aten._assert_tensor_metadata(x, None, None, torch.float32)
        return x.relu()


def test_assertions_of_export_are_no_steps() -> None:
    x = image(8)
    with torch.inference_mode():
        assert torch.equal(optimize(Asserting().eval(), x)(x), x.relu())
