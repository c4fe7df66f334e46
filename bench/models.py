"""Whole networks against other libraries, called back to back and after a pause.

    python bench/models.py [--dtype bf16] [--threads 2] [--minutes 12] [--peers openvino,onnxruntime] [--only resnet]

Each library runs in a process of its own, and calls alternate between them; turns in which others use the cores too
or the host has moved them apart do not count (cores.py). Nothing is reported for a library whose output is not
within 1e-4 of torch's float32 (0.1 in bf16), nor where building a network takes it longer than --prepare seconds.
Rows go into bench/results/<processor>/models_*.csv, in place of older ones of the same network. --minutes ends the
run before the next network, and --peers without "compile" leaves out the one that takes longest to build.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from typing import Any

import torch
from common import provenance, result_file, spread, update
from cores import Cores, State
from model_peers import LIBRARIES, PACKAGES, Dtype
from model_zoo import NETWORKS, Network

from fastnets import _C

PAUSE_S = 0.02
"""Before a call "after idle"."""
BURST_S = 0.1
"""Calls back to back take about so long, and are one at least."""
RHYTHMS = ("back to back", "after 20 ms")
TOLERANCE = {"fp32": 1e-4, "bf16": 0.1}


def work(library: str, threads: int, dtype: Dtype) -> None:
    """Answer each line on stdin: {"prepare": number} with an error or none, {"clock": name} with two times in ms."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like
    run: Any = None
    burst = 1
    for line in sys.stdin:
        order = json.loads(line)
        if "prepare" in order:
            run = None  # frees the network before this one
            try:
                run, burst = prepare(library, NETWORKS[order["prepare"]], threads, dtype)
                reply: Any = ""
            except Exception as error:  # a peer that cannot run the network is a row without it
                reply = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        else:
            reply = times(run, burst, order["clock"])
        print(json.dumps(reply), file=answers, flush=True)


def prepare(library: str, network: Network, threads: int, dtype: Dtype) -> tuple[Any, int]:
    """The call, and how many of them make a burst."""
    run, result = LIBRARIES[library](network, threads, dtype)
    actual = result()
    with torch.inference_mode():
        expected = network.model()(network.input())
    error = float((actual - expected).norm() / expected.norm())
    if not error < TOLERANCE[dtype]:
        raise ValueError(f"its output has a relative error of {error:.1e}")
    run()
    start = time.perf_counter()
    run()
    return run, max(1, round(BURST_S / (time.perf_counter() - start)))


def times(run: Any, burst: int, clock: str) -> tuple[float, float]:
    """Milliseconds of a call among others, and of one after a pause."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    run()  # what the other processes evicted comes back
    start = now()
    for _ in range(burst):
        run()
    steady = (now() - start) / burst
    time.sleep(PAUSE_S)
    start = now()
    run()
    return steady * 1e3, (now() - start) * 1e3


class Worker:
    """A library in a process of its own."""

    def __init__(self, library: str, threads: int, dtype: Dtype) -> None:
        options = {"--worker": library, "--threads": threads, "--dtype": dtype}
        self.command = [sys.executable, __file__, *(str(part) for pair in options.items() for part in pair)]
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.answers), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def ask(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self, seconds: float) -> Any:
        """Raises queue.Empty if none comes in time, and ConnectionError if the process ended; then restart()."""
        line = self.answers.get(timeout=max(seconds, 0.0))
        if not line:
            raise ConnectionError(f"its process ended with {self.process.wait()}")
        return json.loads(line)

    def restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        """Ends it with what it started: a converter that goes on would disturb the measurements."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def ready(workers: dict[str, Worker], number: int, seconds: float) -> tuple[list[str], str]:
    """Build a network in all libraries at once: those that have it, and why the others have not."""
    for worker in workers.values():
        worker.ask({"prepare": number})
    have, missing = [], []
    deadline = time.perf_counter() + seconds
    for name, worker in workers.items():
        try:
            # Ours may not be left out.
            reason = worker.answer(600 if name == "fastnets" else deadline - time.perf_counter())
        except (queue.Empty, ConnectionError) as error:
            worker.restart()
            reason = str(error) or f"not ready in {seconds:.0f} s"
        if not reason:
            have.append(name)
        elif name == "fastnets":
            raise SystemExit(f"{NETWORKS[number].name}: fastnets: {reason}; nothing reported")
        else:
            missing.append(f"{name}: {reason}")
    return have, "; ".join(missing)


Times = dict[str, tuple[float, float]]
"""Of a turn: a library's two times."""


Turn = tuple[list[State], Times]
"""The cores before and after each library, and the times."""


def measure(
    workers: dict[str, Worker], names: list[str], repeats: int, seconds: float, clock: str, cores: Cores
) -> tuple[list[Times], int, float]:
    """The times of the libraries in those turns that count, of at least 3 and then until `seconds` are over.

    And how many were quiet, and the median of the round trips in seconds.
    """
    turns: list[Turn] = []
    start = time.perf_counter()
    while len(turns) < 3 or (len(quiet(turns, cores)) < repeats and time.perf_counter() - start < seconds):
        states: list[State] = []
        taken: Times = {}
        for name in names:
            states.append(cores.settled())
            workers[name].ask({"clock": clock})
            taken[name] = tuple(workers[name].answer(600))
            states.append(cores.now())
        turns.append((states, taken))
    found = quiet(turns, cores)
    count = len(found)
    if count < 3:
        found, count = turns, 0
    return [taken for _, taken in found], count, statistics.median(s.round_trip for states, _ in found for s in states)


def quiet(turns: list[Turn], cores: Cores) -> list[Turn]:
    return [turn for turn in turns if all(map(cores.quiet, turn[0]))]


def rows(network: Network, turns: list[Times], missing: str) -> list[dict[str, Any]]:
    """A line for each rhythm."""
    taken = {name: [turn[name] for turn in turns] for name in turns[0]}
    lines = []
    for i, rhythm in enumerate(RHYTHMS):
        mine = [pair[i] for pair in taken["fastnets"]]
        ours = statistics.median(mine)
        line: dict[str, Any] = {"network": network.name, "rhythm": rhythm, "turns": len(mine)}
        line |= {"ours_ms": round(ours, 3), "ours_spread": round(spread(mine), 2)}
        best = ""
        for name in LIBRARIES:
            if name != "fastnets":
                theirs = [pair[i] for pair in taken.get(name, [])]
                line[f"{name}_ratio"] = round(statistics.median(theirs) / ours, 2) if theirs else ""
                line[f"{name}_spread"] = round(spread(theirs), 2) if theirs else ""
        ratios = {name: line[f"{name}_ratio"] for name in taken if name != "fastnets"}
        best = min(ratios, key=lambda name: ratios[name], default="")
        lines.append(line | {"best_peer": best, "best_ratio": ratios.get(best, ""), "missing": missing})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--row", type=float, default=25, help="seconds of measuring a network, after 3 turns")
    parser.add_argument("--prepare", type=float, default=60, help="seconds in which a peer must have built a network")
    parser.add_argument("--minutes", type=float, default=60, help="no network begins later")
    parser.add_argument("--peers", default=",".join(name for name in LIBRARIES if name != "fastnets"))
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--worker", choices=list(LIBRARIES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads, options.dtype)
        return
    end = time.perf_counter() + 60 * options.minutes
    names = ("fastnets", *filter(None, options.peers.split(",")))
    workers = {name: Worker(name, options.threads, options.dtype) for name in names}
    packages = [PACKAGES[name] for name in workers if name in PACKAGES]
    about = provenance(options.threads, *packages) | {
        "isa": _C.active_isa(),
        "dtype": options.dtype,
        "clock": options.clock,
    }
    target = result_file(f"models_{options.dtype}_{options.threads}threads_{_C.active_isa()}.csv")
    lines: list[dict[str, Any]] = []
    cores = Cores(options.threads)
    try:
        for number, network in enumerate(NETWORKS):
            if options.only not in network.name or time.perf_counter() > end:
                continue
            if network.package and importlib.util.find_spec(network.package) is None:
                print(f"{network.name}: left out: {network.package} is not installed", flush=True)
                continue
            have, missing = ready(workers, number, options.prepare)
            turns, still, trip = measure(workers, have, options.repeats, options.row, options.clock, cores)
            for line in rows(network, turns, missing):
                line |= {"round_trip_ns": round(trip * 1e9), "quiet": still, "peak_gflops": round(cores.highest / 1e9)}
                print(*(f"{key}={value}" for key, value in line.items()), flush=True)
                lines.append(about | line)
            update(target, lines, "network", "rhythm")
    finally:
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    main()
