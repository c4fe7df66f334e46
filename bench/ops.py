"""Convolution against other libraries, on layers of the networks that this library is for.

    python bench/ops.py [--threads 2] [--peers openvino,ncnn] [--only 64to64] [--dtype bf16]

Each library runs in a process of its own, and calls alternate between them. Prints the ratio of each peer's time to
ours, and our share of the measured peak of that type (above 1 where the algorithm multiplies less than the direct one).
Writes bench/results/ops_<threads>threads_<isa>.csv. Nothing is reported for a library whose result is wrong.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import math
import platform
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from conv_peers import LIBRARIES, TYPES, inputs, length, torch_chain

from cases.conv import BENCH, Case, make  # isort: skip  conv_peers puts tests/ on the path
from fastnets import _C

PAUSE_S = 0.02  # threads of the other processes stop spinning
RESULTS = Path(__file__).parent / "results"
FAILED, WRONG = -1.0, -2.0
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}  # of a chain; our own errors are what tests/test_ops.py measures


def work(library: str, threads: int, dtype: str) -> None:
    """Answer each "case number, clock" on stdin with the milliseconds of one layer."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    ready, state = -1, 0.0
    for line in sys.stdin:
        number, clock = line.split()
        case = BENCH[int(number)]
        if ready != int(number):
            ready = int(number)
            try:
                run, result = LIBRARIES[library](case, threads, dtype)
                state = 0.0 if correct(case, result(), dtype) else WRONG
            except Exception as error:  # a peer that lacks the op is a row without it
                print(f"{library}: {case.name}: {error!r}", file=sys.stderr)
                state = FAILED
        if state == 0.0:
            run()  # what the other processes evicted while this one slept comes back
        now = time.process_time if clock == "cpu" else time.perf_counter
        start = now()
        if state == 0.0:
            run()
        print((now() - start) * 1e3 / length(case) if state == 0.0 else state, flush=True)


@torch.inference_mode()
def correct(case: Case, actual: torch.Tensor, dtype: str) -> bool:
    """Close to torch's float32 result."""
    expected = torch_chain(case)(inputs(case))
    return float((actual.float() - expected).norm() / expected.norm()) < TOLERANCE[dtype]


def measure(workers: dict[str, subprocess.Popen[str]], number: int, repeats: int, clock: str) -> dict[str, list[float]]:
    """The times of each library on one case, taken in turns; the first two turns warm up."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(repeats + 2):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            time.sleep(PAUSE_S)
            worker.stdin.write(f"{number} {clock}\n")
            worker.stdin.flush()
            elapsed = float(worker.stdout.readline())
            if elapsed == WRONG and name == "fastnets":
                raise SystemExit(f"{BENCH[number].name}: our result is wrong; nothing reported")
            if turn > 1 and elapsed >= 0:
                times[name].append(elapsed)
    return {name: mine for name, mine in times.items() if mine}


def spread(times: list[float]) -> float:
    """Interquartile range over median."""
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle


def row(case: Case, times: dict[str, list[float]], peak: float) -> dict[str, str | float]:
    """One line of the table."""
    ours = statistics.median(times["fastnets"])
    call = make(case)
    operations = 2 * math.prod(call.out_shape) * call.weight[0].numel()
    values: dict[str, str | float] = {
        "case": case.name,
        "ours_ms": round(ours, 3),
        "ours_spread": round(spread(times["fastnets"]), 2),
        "of_peak": round(operations / (ours * 1e-3) / peak, 2),
    }
    for name in LIBRARIES:
        if name != "fastnets":
            values[f"{name}_ratio"] = round(statistics.median(times[name]) / ours, 2) if name in times else ""
            values[f"{name}_spread"] = round(spread(times[name]), 2) if name in times else ""
    return values


def commit() -> str:
    """The short commit hash, with + where the tree differs from it; "none" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def cpu_model() -> str:
    """What /proc/cpuinfo says, or else Python."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", choices=list(TYPES), default="fp32")
    parser.add_argument("--peers", default=",".join(name for name in LIBRARIES if name != "fastnets"))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--worker", choices=list(LIBRARIES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads, options.dtype)
        return
    peak = max(
        _C.peak_flops(options.threads, options.dtype == "bf16") for _ in range(40)
    )  # some of them without being interrupted
    names = ["fastnets", *filter(None, options.peers.split(","))]
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--worker", name, "--threads", str(options.threads), "--dtype", options.dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    }
    about: dict[str, str | float] = {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu_model(),
        "isa": _C.active_isa(),
        "threads": options.threads,
        "clock": options.clock,
        "peak_gflops": round(peak / 1e9),
        "versions": " ".join(f"{name} {importlib.metadata.version(name)}" for name in names if name != "fastnets"),
    }
    suffix = "" if options.dtype == "fp32" else "_" + options.dtype
    target = RESULTS / f"ops_{options.threads}threads_{_C.active_isa()}{suffix}.csv"
    rows: list[dict[str, str | float]] = []
    for number, case in enumerate(BENCH):
        if options.only not in case.name:
            continue
        rows.append({**about, **row(case, measure(workers, number, options.repeats, options.clock), peak)})
        print(*(f"{key}={value}" for key, value in rows[-1].items() if key not in about), flush=True)
        if not options.only:
            write(rows, target)
    for worker in workers.values():
        worker.communicate()


def write(rows: list[dict[str, str | float]], target: Path) -> None:
    """The table so far: a long run that is stopped keeps what it measured."""
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
