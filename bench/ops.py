"""Layers against other libraries: convolution, separable and depthwise, 2D and 3D.

    python bench/ops.py [--threads 2] [--dtype bf16] [--isa avx2] [--peers openvino,ncnn] [--only 64to64]

Each library runs in a process of its own, and calls alternate between them. Prints the ratio of each peer's time to
ours, and our share of the measured peak of that type (above 1 where the algorithm multiplies less than the direct
one). Nothing is reported for a library whose result is wrong; one that is not installed is left out. With --isa the
only peer is torch, limited to that level.

Rows go into bench/results/<processor>/ops_*.csv, in place of older ones of the same layer; and the same
figures in the format of pytest-benchmark where --json says, for its `compare`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from common import provenance, result_file, spread, update
from layers import LAYERS, Layer
from op_peers import LIBRARIES, TYPES
from pytest_benchmark.stats import Stats

from fastnets import _C

PAUSE_S = 0.1  # threads of ONNX Runtime spin for 50 ms after a call, and would take a core from the next

FAILED, WRONG = -1.0, -2.0
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}  # of a chain; our own errors are what tests/test_ops.py measures
LIMITS = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}}  # of torch

Row = dict[str, object]
Times = dict[str, list[float]]


def work(library: str, threads: int, dtype: str) -> None:
    """Answer each "layer number, clock" on stdin with the milliseconds of one layer."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    ready, state = -1, 0.0
    for line in sys.stdin:
        number, clock = line.split()
        layer = LAYERS[int(number)]
        if ready != int(number):
            ready = int(number)
            try:
                run, result = LIBRARIES[library](layer, threads, dtype)
                state = 0.0 if correct(layer, result(), dtype) else WRONG
            except Exception as error:  # a peer that lacks the op is a row without it
                print(f"{library}: {layer.name}: {error!r}", file=sys.stderr)
                state = FAILED
        if state == 0.0:
            run()  # what the other processes evicted while this one slept comes back
        now = time.process_time if clock == "cpu" else time.perf_counter
        start = now()
        if state == 0.0:
            run()
        print((now() - start) * 1e3 / layer.length if state == 0.0 else state, flush=True)


@torch.inference_mode()
def correct(layer: Layer, actual: torch.Tensor, dtype: str) -> bool:
    """Close to torch's float32 result."""
    expected = layer.chain()(layer.inputs())
    return float((actual.float() - expected).norm() / expected.norm()) < TOLERANCE[dtype]


def measure(workers: dict[str, subprocess.Popen[str]], number: int, repeats: int, clock: str) -> Times:
    """The times of each library on one layer, taken in turns; the first two turns warm up."""
    times: Times = {name: [] for name in workers}
    for turn in range(repeats + 2):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            time.sleep(PAUSE_S)
            worker.stdin.write(f"{number} {clock}\n")
            worker.stdin.flush()
            elapsed = float(worker.stdout.readline())
            if elapsed < 0 and name == "fastnets":
                raise SystemExit(f"{LAYERS[number].name}: our result is wrong or missing; nothing reported")
            if turn > 1 and elapsed >= 0:
                times[name].append(elapsed)
    return {name: mine for name, mine in times.items() if mine}


def row(layer: Layer, times: Times, peers: list[str], peak: float) -> Row:
    """One line of the table."""
    ours = statistics.median(times["fastnets"])
    values: Row = {
        "case": layer.name,
        "ours_ms": round(ours, 3),
        "ours_spread": round(spread(times["fastnets"]), 2),
        "of_peak": round(layer.operations / (ours * 1e-3) / peak, 2),
    }
    for name in peers:
        values[f"{name}_ratio"] = round(statistics.median(times[name]) / ours, 2) if name in times else ""
        values[f"{name}_spread"] = round(spread(times[name]), 2) if name in times else ""
    return values


def benchmarks(layer: Layer, times: Times) -> list[Row]:
    """The entries of pytest-benchmark: one a library, in seconds."""
    entries: list[Row] = []
    for library, milliseconds in times.items():
        stats = Stats()
        for time_ms in milliseconds:
            stats.update(time_ms * 1e-3)
        name = f"{layer.name}[{library}]"
        entries.append(
            {
                "name": name,
                "fullname": f"bench/ops.py::{name}",
                "group": layer.name,
                "param": library,
                "params": {"library": library},
                "extra_info": {},
                "options": {},
                "stats": {**stats.as_dict(), "iterations": 1},
            }
        )
    return entries


def start(library: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    """The process of a library."""
    arguments = ["--worker", library, "--threads", str(options.threads), "--dtype", options.dtype]
    environment = {**os.environ, **(LIMITS.get(options.isa, {}) if library == "torch" else {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, __file__, *arguments], env=environment, text=True, **pipes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", choices=list(TYPES), default="fp32")
    parser.add_argument("--isa", choices=["", *LIMITS], default="", help="instruction set of ours and of torch")
    parser.add_argument("--peers", default="", help="libraries, by commas; all by default")
    parser.add_argument("--only", default="", help="layers whose name contains this")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--json", type=Path, help="where to write the times for pytest-benchmark")
    parser.add_argument("--worker", choices=list(LIBRARIES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads, options.dtype)
        return
    if options.isa == _C.available_isas()[-1]:
        print(f"{options.isa} is this machine's own level: the run without --isa has it, with torch beside it")
        return
    if options.isa:
        os.environ["FASTNETS_ISA"] = options.isa  # before the level is chosen
    peers = ["torch"] if options.isa else options.peers.split(",") if options.peers else [*LIBRARIES]
    peers = [name for name in peers if name != "fastnets" and importlib.util.find_spec(name)]
    # Some of these measurements are not interrupted.
    peak = max(_C.peak_flops(options.threads, options.dtype == "bf16") for _ in range(40))
    workers = {name: start(name, options) for name in ("fastnets", *peers)}
    about: Row = {
        **provenance(options.threads, *peers),
        "isa": _C.active_isa(),
        "clock": options.clock,
        "peak_gflops": round(peak / 1e9),
    }
    suffix = "" if options.dtype == "fp32" else "_" + options.dtype
    target = result_file(f"ops_{options.threads}threads_{_C.active_isa()}{suffix}.csv")
    rows: list[Row] = []
    entries: list[Row] = []
    for number, layer in enumerate(LAYERS):
        if options.only not in layer.name:
            continue
        times = measure(workers, number, options.repeats, options.clock)
        rows.append({**about, **row(layer, times, peers, peak)})
        entries += benchmarks(layer, times)
        print(*(f"{key}={value}" for key, value in rows[-1].items() if key not in about), flush=True)
        update(target, rows, "case")
    for worker in workers.values():
        worker.communicate()
    if options.json:
        info = {"id": about["commit"], "branch": "", "dirty": str(about["commit"]).endswith("+")}
        report = {"machine_info": about, "commit_info": info, "benchmarks": entries, "datetime": about["date"]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**report, "version": "4.0.0"}, indent=1))


if __name__ == "__main__":
    main()
