"""How far the choice without tuning is from the tuned one, on the layers of bench/ops.py.

    python bench/tuning.py [--threads 2] [--only 64to64] [--clock cpu]

Tunes each layer into a cache folder of its own, then times both choices in turns with cold caches. Writes
bench/results/<processor>/tuning_*.csv, and fails where the untuned choice is slower by more than 15 %.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import provenance, result_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cases.conv import BENCH, Case, make

from fastnets import _C
from fastnets.ops.conv import PackedConv
from fastnets.ops.conv_choice import heuristic
from fastnets.ops.conv_config import ConvConfig
from fastnets.ops.conv_tuning import cold_times
from fastnets.ops.layout import channels_last, empty_channels_last

LIMIT = 1.15
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def compare(case: Case, threads: int, clock: str) -> dict[str, object]:
    """One line of the table: both configurations and their milliseconds."""
    call = make(case)
    arguments = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups}

    def layer(config: ConvConfig | None = None) -> PackedConv:
        return PackedConv(call.weight, call.bias, activation="relu", config=config, **arguments)

    plain, tuned = heuristic(call.shape, threads), layer().tune(call.x.shape, clock=CLOCKS[clock])
    x = channels_last(call.x)
    out = empty_channels_last(x, call.out_shape)
    layers = {config: layer(config) for config in (plain, tuned)}
    runs = {config: lambda conv=conv: conv(x, out=out) for config, conv in layers.items()}
    times = cold_times(runs, CLOCKS[clock], turns=11, hopeless=100)
    return {
        "case": case.name,
        "untuned": describe(plain),
        "tuned": describe(tuned),
        "untuned_ms": round(times[plain] * 1e3, 3),
        "tuned_ms": round(times[tuned] * 1e3, 3),
        "ratio": round(times[plain] / times[tuned], 3),
    }


def describe(config: ConvConfig) -> str:
    """ "winograd 1x6x6 block 28 share"."""
    tile = " " + "x".join(map(str, config.tile)) if config.algorithm == "winograd" else ""
    return f"{config.algorithm}{tile} block {config.block}" + " share" * config.share + " stream" * config.stream


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: on a busy machine, one thread")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    about = {**provenance(options.threads, "torch"), "isa": _C.active_isa(), "clock": options.clock}
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for case in BENCH:
            if options.only in case.name:
                rows.append({**about, **compare(case, options.threads, options.clock)})
                print(*(f"{key}={value}" for key, value in rows[-1].items() if key not in about), flush=True)
    if not options.only:
        name = f"tuning_{options.threads}threads_{_C.active_isa()}.csv"
        with result_file(name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    slow = [row for row in rows if float(str(row["ratio"])) > LIMIT]
    if slow:
        raise SystemExit(f"{len(slow)} of {len(rows)} choices are slower than tuned ones by more than 15 %")


if __name__ == "__main__":
    main()
