"""Sliding-window inference against MONAI's: what windows cost around a network that does nothing.

    python bench/sliding_window.py

Each library runs in a process of its own; calls alternate between the two, so that both see the same
machine. Writes bench/results/<processor>/sliding_window.csv.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from common import provenance, result_file, spread

REPEATS = 15
PAUSE_S = 0.01  # threads of the other process stop spinning


@dataclass(frozen=True)
class Case:
    """`shape` in windows of `roi`, `batch` at a time, overlap 0.5."""

    shape: tuple[int, ...]
    roi: int
    batch: int
    mode: str
    channels_last: bool = False

    @property
    def name(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        return f"{'x'.join(map(str, self.shape))} roi {self.roi} batch {self.batch} {self.mode} {layout}"

    def inputs(self) -> torch.Tensor:
        """Random float32."""
        last = torch.channels_last if len(self.shape) == 4 else torch.channels_last_3d
        values = torch.rand(self.shape, generator=torch.Generator().manual_seed(0))
        return values.contiguous(memory_format=last) if self.channels_last else values

    def floor_ms(self, bytes_per_s: float) -> float:
        """Reading the input once and writing the output once: no way of doing it moves less."""
        return 2 * 4 * torch.Size(self.shape).numel() / bytes_per_s * 1e3


CASES = [
    Case(shape, roi, batch, mode, last)
    for shape, roi, batch in (
        ((1, 3, 1024, 1024), 256, 4),
        ((1, 8, 1024, 1024), 256, 4),
        ((1, 1, 160, 160, 160), 96, 2),
        ((1, 4, 128, 128, 128), 64, 4),
    )
    for mode in ("constant", "gaussian")
    for last in (False, True)
    if shape[1] > 1 or not last
]


def load(library: str) -> Callable[..., Any]:
    """The function under test."""
    if library == "fastnets":
        from fastnets.tiling.sliding_window import sliding_window_inference

        return sliding_window_inference
    warnings.simplefilter("ignore")
    function: Callable[..., Any] = importlib.import_module("monai.inferers").sliding_window_inference
    return function


def work(library: str, threads: int) -> None:
    """Answer each case number on stdin with the milliseconds of one call, or -1 where its result is wrong."""
    torch.set_num_threads(threads)
    function, ready = load(library), -1
    for line in sys.stdin:
        if ready != int(line):
            ready = int(line)
            case = CASES[ready]
            inputs = case.inputs()
            correct = torch.allclose(call(function, inputs, case), inputs, rtol=1e-5, atol=1e-5)
        start = time.perf_counter()
        call(function, inputs, case)
        print((time.perf_counter() - start) * 1e3 if correct else -1, flush=True)


@torch.inference_mode()
def call(function: Callable[..., Any], inputs: torch.Tensor, case: Case) -> torch.Tensor:
    """One run with the identity for a network."""
    result = function(inputs, case.roi, case.batch, lambda windows: windows, 0.5, case.mode)
    assert isinstance(result, torch.Tensor)
    return result


def measure(workers: list[subprocess.Popen[str]], number: int) -> list[list[float]]:
    """The times of each worker on one case, taken in turns; the first turn is a warm-up."""
    times: list[list[float]] = [[] for _ in workers]
    for turn in range(REPEATS + 1):
        for worker, mine in zip(workers, times, strict=True):
            assert worker.stdin is not None
            assert worker.stdout is not None
            time.sleep(PAUSE_S)
            worker.stdin.write(f"{number}\n")
            worker.stdin.flush()
            elapsed = float(worker.stdout.readline())
            if elapsed < 0:
                raise SystemExit(f"{CASES[number].name}: {worker.args!r} returns a wrong result; nothing reported")
            if turn:
                mine.append(elapsed)
    return times


def copy_bandwidth() -> float:
    """Bytes a second that torch reads and writes when it copies 128 MiB; the best of ten."""
    source = torch.rand(32 << 20)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--worker", choices=["fastnets", "monai"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads)
        return
    torch.set_num_threads(options.threads)
    bandwidth = copy_bandwidth()
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", library, "--threads", str(options.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for library in ("fastnets", "monai")
    ]
    rows = []
    for number, case in enumerate(CASES):
        ours, peer = measure(workers, number)
        rows.append(
            {
                **provenance(options.threads, "fastnets", "torch", "monai"),
                "case": case.name,
                "dtype": "float32",
                "ours_ms": round(statistics.median(ours), 3),
                "peer_ms": round(statistics.median(peer), 3),
                "ratio": round(statistics.median(peer) / statistics.median(ours), 2),
                "ours_spread": round(spread(ours), 2),
                "peer_spread": round(spread(peer), 2),
                "floor_ms": round(case.floor_ms(bandwidth), 3),
                "copy_gb_s": round(bandwidth / 1e9, 1),
                "load": round(os.getloadavg()[0], 1),  # above the number of threads: others were running
            }
        )
        row = rows[-1]
        print(f"{case.name}: {row['ours_ms']} ms, monai {row['peer_ms']} ms, ratio {row['ratio']}", flush=True)
    for worker in workers:
        worker.communicate()
    with result_file("sliding_window.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
