"""What the engine costs beside its kernels: the first call, a reload, a call's overhead, and its memory.

    python bench/engine.py [--threads 2]

Writes bench/results/<processor>/engine_<threads>threads.csv.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import provenance, result_file
from model_zoo import NETWORKS
from torch import nn

import fastnets
from fastnets.tiling.memory import PeakMemory, return_freed_memory


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def first_call() -> list[dict[str, Any]]:
    """Of ResNet-50: traced, packed and run; and loaded from a file and run."""
    network = next(n for n in NETWORKS if n.name == "resnet50")
    model, x = network.model(), network.input()
    made: list[fastnets.Optimized] = []

    def make() -> None:
        made.append(fastnets.optimize(model, x))
        made[0](x)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "resnet50.safetensors"
        first = seconds(make)
        made[0].save(file)
        reload = seconds(lambda: fastnets.Optimized.load(file)(x))
    return [
        {"what": "resnet50: first call", "value": round(first, 2), "unit": "s", "target": "<= 5"},
        {"what": "resnet50: load and first call", "value": round(reload, 2), "unit": "s", "target": "<= 1"},
    ]


def overhead(calls: int = 2000) -> list[dict[str, Any]]:
    """Of a network of three layers on few pixels, beside its kernels, with one thread."""
    layers = (nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1))
    x = torch.randn(1, 8, 8, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = fastnets.optimize(nn.Sequential(*layers).eval(), x)
    whole = statistics.median(seconds(lambda: model(x)) for _ in range(calls))
    kernels = sum(model.plan_for(x).profile([x], calls).values())
    torch.set_num_threads(threads)
    return [
        {"what": "3 layers: a call", "value": round(whole * 1e6, 1), "unit": "us", "target": ""},
        {"what": "3 layers: beside the kernels", "value": round((whole - kernels) * 1e6, 1), "unit": "us",
         "target": "<= 30"},
    ]  # fmt: skip


def memory(name: str) -> float:
    """peak_memory() over what a first run takes, when the weights are packed. Of a process that did nothing else."""
    network = next(n for n in NETWORKS if n.name == name)
    model = fastnets.optimize(network.model(), network.input())
    model.original = None  # frees its weights
    said = model.peak_memory(network.shape)
    x = network.input()
    return_freed_memory()
    with PeakMemory() as taken:
        _result = model(x)  # alive at the last reading
    return said / (taken.peak - taken.start)


def memories(threads: int) -> list[dict[str, Any]]:
    lines = []
    for name in ("unet 2d", "unet 3d", "vgg16 features", "dilated context", "resnet50"):
        command = [sys.executable, __file__, "--threads", str(threads), "--memory", name]
        ratio = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        what = f"{name}: peak_memory() over measured"
        lines.append({"what": what, "value": round(ratio, 3), "unit": "", "target": "0.95 to 1.05"})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    if options.memory:
        print(memory(options.memory))
        return
    lines = [*first_call(), *overhead(), *memories(options.threads)]
    for line in lines:
        print(f"{line['what']:45} {line['value']:>9} {line['unit']:3} {line['target']}")
    with result_file(f"engine_{options.threads}threads.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*provenance(options.threads, "torch"), *lines[0]])
        writer.writeheader()
        writer.writerows(provenance(options.threads, "torch") | line for line in lines)


if __name__ == "__main__":
    main()
