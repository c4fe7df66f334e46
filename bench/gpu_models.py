"""Measures whole networks in bf16 on a GPU, through optimize() and in torch, eager and compiled. See gpu.sh.

Writes OUT_DIR/models.csv and OUT_DIR/models.txt, anew as each row is known: first our plans against eager
(channels-last, cudnn.benchmark), then a volume by sliding windows, then torch.compile(mode="max-autotune") while time
is left, in a process of its own for each network, because no call of torch can be told to stop. Memory: what our plans
allocate beside cuDNN's workspace, and torch's peak.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import commit
from gpu_networks import NETWORKS, Network, memory_format
from gpu_timing import peak_bytes, seconds
from gpu_volume import volume_row
from torch import Tensor, nn

import fastnets

FIELDS = ["commit", "gpu", "torch", "network", "batch", "ms", "eager_ratio", "compiled_ratio", "error", "eager_error",
          "peak_mb", "eager_peak_mb", "note"]  # fmt: skip
COMPILE_SECONDS = 60
LIMIT = 5e-2
"""Of the error to float32, for networks in bf16."""


@dataclass
class Bench:
    """Where rows go. `small`: on the CPU, in Triton's interpreter, and not timed."""

    out: Path
    small: bool
    deadline: float
    facts: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def add(self, name: str, batch: int, make: Callable[[], dict[str, Any]], *, needs: float) -> None:
        """A row, or why there is none; an error is a row that says so."""
        row: dict[str, Any] = {"network": name, "batch": batch}
        if self.left() < needs:
            row["note"] = "no time"
        else:
            try:
                row |= make()
            except Exception as error:  # the others may still run, and gpu_models.py ends with a failure
                row["note"] = f"ERROR: {type(error).__name__}: {error}".splitlines()[0]
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        with (self.out / "models.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, FIELDS)
            table.writeheader()
            table.writerows({**self.facts, **row} for row in self.rows)
        lines = [
            f"{row['network']} n{row['batch']}: "
            + ", ".join(f"{key} {row[key]}" for key in FIELDS[5:] if row.get(key) not in (None, ""))
            for row in self.rows
        ]
        (self.out / "models.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(lines[-1], flush=True)

    @property
    def failed(self) -> bool:
        return any(str(row.get("note", "")).startswith(("ERROR", "WRONG")) for row in self.rows)


def error_of(actual: Tensor, expected: Tensor) -> float:
    """Relative, 2-norm."""
    return float((actual.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))


def eager_model(network: Network, device: torch.device) -> nn.Module:
    return network.model(small=False).to(device, torch.bfloat16)


def eager_input(network: Network, batch: int, device: torch.device) -> Tensor:
    x = network.image(batch, small=False).to(device, torch.bfloat16)
    return x.contiguous(memory_format=memory_format(network.shape))


def network_row(network: Network, batch: int, *, small: bool) -> dict[str, Any]:
    """Ours against eager, each on inputs of its own; the first image's error to float32."""
    device = torch.device("cpu" if small else "cuda")
    model = network.model(small=small).to(device)
    x = network.image(batch, small=small).to(device)
    ours = fastnets.optimize(model, x, device="cuda", dtype="fp32" if small else "bf16")
    expected = model(x[:1])
    error = error_of(ours(x)[:1], expected)
    row: dict[str, Any] = {"error": f"{error:.1e}"}
    if not error <= (1e-4 if small else LIMIT):
        return {**row, "note": "WRONG"}
    if small:
        return {**row, "note": "checked, not timed"}
    own = seconds(partial(ours, x))
    row |= {"ms": round(1e3 * own, 3), "peak_mb": ours.peak_memory(tuple(x.shape)) >> 20}
    del ours, model
    peer = partial(eager_model(network, device), eager_input(network, batch, device))
    row["eager_error"] = f"{error_of(peer()[:1], expected):.1e}"
    row["eager_ratio"] = round(seconds(peer) / own, 2)
    row["eager_peak_mb"] = peak_bytes(peer) >> 20
    return row


def compiled_seconds(network: Network, batch: int) -> float:
    """What the process of --compiled prints."""
    device = torch.device("cuda")
    model = torch.compile(eager_model(network, device), mode="max-autotune")
    return seconds(partial(model, eager_input(network, batch, device)))


def add_compiled(bench: Bench, row: dict[str, Any]) -> None:
    """Fill the row's ratio to torch.compile, or say why not."""
    limit = min(COMPILE_SECONDS, bench.left() - 2)
    command = [sys.executable, __file__, str(bench.out), "--compiled", row["network"], "--batch", str(row["batch"])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        row["note"] = f"torch.compile did not end in {limit:.0f} s"
    else:
        if done.returncode:
            row["note"] = f"torch.compile failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        else:
            row["compiled_ratio"] = round(1e3 * json.loads(done.stdout.splitlines()[-1]) / row["ms"], 2)
    bench.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=180, help="no row begins later")
    parser.add_argument("--cpu-check", action="store_true", help="tiny networks in Triton's interpreter")
    parser.add_argument("--compiled", metavar="NAME", help="only time this network, compiled by torch, and print it")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    if options.cpu_check:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        raise SystemExit("bench/gpu_models.py: torch finds no GPU: pass --cpu-check, or run it where there is one")
    torch.backends.cudnn.benchmark = True
    small = options.cpu_check
    gpu = "the CPU, interpreted" if small else torch.cuda.get_device_name()
    facts = {"commit": commit(), "gpu": gpu, "torch": torch.__version__}
    with torch.no_grad():
        if options.compiled:
            (network,) = (n for n in NETWORKS if n.name == options.compiled)
            print(json.dumps(compiled_seconds(network, options.batch)))
            return
        bench = Bench(options.out, small, time.monotonic() + options.seconds, facts)
        for batch in (1,) if small else (32, 1):
            for network in NETWORKS:
                bench.add(network.name, batch, partial(network_row, network, batch, small=small), needs=15)
                free()
        bench.add("sliding window over a volume, against MONAI", 1, partial(volume_row, small=small), needs=40)
        free()
        timed = [row for row in bench.rows if "ms" in row and "sliding" not in row["network"]]
        for row in timed:
            if bench.left() > 20:
                add_compiled(bench, row)
    if bench.failed:
        raise SystemExit("bench/gpu_models.py: see ERROR and WRONG in models.csv")


def free() -> None:
    """Leave the memory to the next, which may be another process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
