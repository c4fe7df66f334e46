"""The demonstration: a brain MRI and an H&E slide, segmented by the command line and checked against the truth.

    python bench/demo.py [--record]

Runs `fastnets predict` twice, as a user would, and prints what it cost and where the files are. `--record`
also writes bench/results/<processor>/demo.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from common import provenance, result_file
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
RUNS = (("ch2.nii.gz", "brain_unet3d", "Mvox"), ("cmu_small_region.svs", "nuclei_demo", "Mpx"))
STAGES = ("plan", "read", "decode", "network", "merge", "write")


def predict(image: Path, model: str, output: Path) -> dict[str, Any]:
    """One run of the command line; its progress goes to the terminal."""
    command = ["predict", "-i", str(image), "-o", str(output), "-m", model, "--overwrite", "--json"]
    done = subprocess.run(
        [Path(sys.executable).with_name("fastnets"), *command], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)["results"][0]
    return result


def brain_dice(mask: Path) -> float:
    """Dice of the mask against the brain that BET extracted from the same MRI."""
    volumes = (np.asarray(nibabel.load(path).dataobj) > 0 for path in (mask, DATA / "ch2bet.nii.gz"))
    mine, truth = volumes
    return float(2 * np.count_nonzero(mine & truth) / (np.count_nonzero(mine) + np.count_nonzero(truth)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    results = [predict(DATA / image, model, options.output) for image, model, _ in RUNS]
    for (image, model, unit), result in zip(RUNS, results, strict=True):
        speed = result["pixels"] / result["seconds"] / 1e6
        stages = {s: result["stages"][s] for s in STAGES}
        rows.append(
            {
                **provenance(torch.get_num_threads(), "fastnets", "torch"),
                "image": image,
                "model": model,
                "speed": f"{speed:.2f} {unit}/s",
                "peak_mb": round(result["peak_bytes"] / 1e6),
                **{f"{s}_s": round(v, 2) for s, v in stages.items()},
                "wall_s": round(result["seconds"], 2),
            }
        )
    console = Console(highlight=False)
    table = Table("", *(str(row["image"]) for row in rows), title="fastnets demo", title_justify="left")
    for key in ("model", "speed", "peak_mb", *(f"{s}_s" for s in STAGES), "wall_s"):
        table.add_row(key.replace("_", " "), *(str(row[key]) for row in rows))
    console.print(table)
    console.print(f"Dice of the brain mask against ch2bet > 0: {brain_dice(Path(results[0]['files']['nifti'])):.4f}")
    for result in results:
        for path in result["files"].values():
            console.print(f"  {path}", soft_wrap=True)
    if options.record:
        with result_file("demo.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
