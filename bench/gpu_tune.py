"""Measures configurations of the Triton kernels on this GPU and writes the best to kernels/tuned/<gpu>.json.

Climbs from the one that the kernel itself chooses, a field at a time, over the cases of bench/gpu.py. What does not
compile, does not fit the chip or gives another result is left out. Later calls of the same shapes read the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from common import commit
from gpu import difference
from gpu_cases import Case, Factory, cases
from gpu_timing import copies, seconds, turns
from triton.compiler.errors import CompilationError
from triton.runtime.errors import InterpreterError, OutOfResources, PTXASError

GAIN = 0.97
"""Of the time of the best so far: what is no faster than this is noise."""
TOLERANCE = 1e-2
"""Between results in bfloat16 of two configurations, relative, 2-norm."""


def neighbours(config: Any) -> Iterator[Any]:
    """Those with one number doubled or halved; one more or less of the stages."""
    for field in fields(config):
        value = getattr(config, field.name)
        if type(value) is int:
            near = (value - 1, value + 1) if field.name == "stages" else (value // 2, 2 * value)
            yield from (replace(config, **{field.name: number}) for number in near if number >= 1)


def climb(config: Any, cost: Callable[[Any], float], deadline: float) -> tuple[Any, float, float]:
    """The best that single steps reach from `config`, its cost and that of `config`; inf: it cannot run."""
    first = best = cost(config)
    seen, moved = {config}, True
    while moved:
        moved = False
        for candidate in neighbours(config):
            if candidate in seen or time.monotonic() > deadline:
                continue
            seen.add(candidate)
            found = cost(candidate)
            if found < GAIN * best:
                config, best, moved = candidate, found, True
                break
    return config, best, first


def tune(case: Case, device: torch.device, deadline: float) -> Iterator[tuple[tuple[str, str], Any, float, float]]:
    """Kernel and key, the best configuration, its time and that of the kernel's own choice."""
    from fastnets.kernels.tuned import trial

    sets = copies(case.make, device)
    with trial({}) as own:
        expected = case.ours(*sets[0])

    def cost(place: tuple[str, str], config: Any) -> float:
        with trial({place: config}):
            try:
                result = case.ours(*sets[0])
            except (CompilationError, InterpreterError, OutOfResources, PTXASError):
                return float("inf")
            except RuntimeError as error:
                if "PassManager" not in str(error):  # of the compiler
                    raise
                return float("inf")
            if not difference(result, expected) <= TOLERANCE:
                return float("inf")
            return seconds(turns(case.ours, sets), 0.05) if device.type == "cuda" else _interpreted(case, sets[0])

    for place, config in own.asked.items():
        yield place, *climb(config, partial(cost, place), deadline)


def _interpreted(case: Case, arguments: tuple[Any, ...]) -> float:
    start = time.perf_counter()
    case.ours(*arguments)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="kernels/tuned/<gpu>.json")
    parser.add_argument("--only", default="", help="cases whose name has this")
    parser.add_argument("--seconds", type=float, default=420, help="no measurement begins later")
    parser.add_argument("--cpu-check", action="store_true", help="tiny sizes in Triton's interpreter; needs --out")
    options = parser.parse_args()
    if options.cpu_check and options.out is None:
        parser.error("--cpu-check measures nothing: pass --out FILE beside kernels/tuned")
    if not options.cpu_check and not torch.cuda.is_available():
        raise SystemExit("bench/gpu_tune.py: torch finds no GPU: pass --cpu-check, or run it where there is one")
    from fastnets.kernels import launch, tuned

    deadline = time.monotonic() + options.seconds
    torch.manual_seed(0)
    device = torch.device("cpu" if options.cpu_check else "cuda")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for case in cases(Factory(device, options.cpu_check)):
        if options.only in case.name and time.monotonic() < deadline:
            for (kernel, key), config, after, before in tune(case, device, deadline):
                if after < before:
                    found.setdefault(kernel, {})[key] = asdict(config)
                print(f"{case.name}: {kernel}: {1e6 * before:.1f} to {1e6 * after:.1f} us: {config}", flush=True)
    facts = {"gpu": launch.gpu(), "commit": commit(), "torch": torch.__version__, "triton": triton.__version__}
    path = options.out or tuned.FOLDER / f"{launch.gpu()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "kernels": found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
