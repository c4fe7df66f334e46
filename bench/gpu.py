"""Measures the Triton kernels against torch, eager and compiled, and against what the chip reaches. See gpu.sh.

Writes OUT_DIR/gpu.csv (a row as each case ends) and OUT_DIR/table.txt. A case whose result differs from torch's is
reported as wrong and not timed.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import torch
from common import commit
from gpu_cases import Case, Factory, cases
from gpu_timing import Machine, copies, machine, peak_bytes, seconds, turns

FIELDS = ["commit", "gpu", "torch", "triton", "case", "us", "eager_ratio", "compiled_ratio", "ceiling", "error",
          "peak_mb", "eager_peak_mb", "note"]  # fmt: skip
COMPILE_SECONDS = 25
"""Left at least where torch.compile is asked."""


def difference(ours: Any, theirs: Any) -> float:
    """Relative, 2-norm; of labels and indices the share that differs."""
    if isinstance(ours, tuple):
        return max(difference(a, b) for a, b in zip(ours, theirs, strict=True))
    if ours.shape != theirs.shape:
        return float("inf")
    if not ours.is_floating_point():
        return float((ours != theirs).float().mean())
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-30))


def measure(case: Case, chip: Machine, deadline: float, *, check: bool) -> dict[str, Any]:
    """A row of the table; its times are left out where the result is wrong."""
    sets = copies(case.make, chip.device)
    error = difference(case.ours(*sets[0]), case.torch(*sets[0]))
    row: dict[str, Any] = {"case": case.name, "error": f"{error:.1e}"}
    if not error <= 2e-2:
        return {**row, "note": "WRONG"}
    if check:
        return {**row, "note": "checked, not timed"}
    ours = seconds(turns(case.ours, sets))
    eager = seconds(turns(case.torch, sets))
    row |= {
        "us": round(1e6 * ours, 1),
        "eager_ratio": round(eager / ours, 2),
        "ceiling": round(chip.floor(case.moved, case.operations) / ours, 3),
        "peak_mb": peak_bytes(lambda: case.ours(*sets[0])) >> 20,
        "eager_peak_mb": peak_bytes(lambda: case.torch(*sets[0])) >> 20,
    }
    if not case.compiled:
        return row
    if time.monotonic() + COMPILE_SECONDS > deadline:
        return {**row, "note": "no time for torch.compile"}
    compiled = torch.compile(case.torch, mode="max-autotune-no-cudagraphs")
    return {**row, "compiled_ratio": round(seconds(turns(compiled, sets)) / ours, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=180, help="no case begins later")
    parser.add_argument("--cpu-check", action="store_true", help="tiny sizes in Triton's interpreter")
    options = parser.parse_args()
    if not options.cpu_check and not torch.cuda.is_available():
        raise SystemExit("bench/gpu.py: torch finds no GPU: pass --cpu-check, or run it where there is one")
    import triton

    deadline = time.monotonic() + options.seconds
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    device = torch.device("cpu" if options.cpu_check else "cuda")
    chip = machine(device)
    facts = {"commit": commit(), "gpu": chip.name, "torch": torch.__version__, "triton": triton.__version__}
    reach = f"copy {chip.copy / 1e9:.0f} GB/s, bf16 product {chip.product / 1e12:.0f} TFLOP/s"
    lines = [chip.name if options.cpu_check else f"{chip.name}: {reach}"]
    wrong = False
    with (options.out / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        for case in cases(Factory(device, options.cpu_check)):
            if time.monotonic() > deadline:
                row: dict[str, Any] = {"case": case.name, "note": "no time"}
            else:
                row = measure(case, chip, deadline, check=options.cpu_check)
            wrong |= row.get("note") == "WRONG"
            table.writerow({**facts, **row})
            file.flush()
            shown = [f"{key} {row[key]}" for key in FIELDS[5:] if row.get(key) not in (None, "")]
            lines.append(f"{case.name}: {', '.join(shown)}")
            print(lines[-1], flush=True)
    (options.out / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if wrong:
        raise SystemExit("bench/gpu.py: results differ from torch's: see WRONG in gpu.csv")


if __name__ == "__main__":
    main()
