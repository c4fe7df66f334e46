"""The tables of README.md, from the result files.

python bench/tables.py bench/results/*/models_fp32_*.csv
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

PEERS = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "ncnn": "ncnn", "torch": "torch", "compile": "compile"}
Row = dict[str, str]


def print_table(head: list[str], lines: list[list[str]]) -> None:
    print(f"| {' | '.join(head)} |")
    print("|" + "---|" * len(head))
    for line in lines:
        print(f"| {' | '.join(line)} |")


def peers_in(rows: list[Row]) -> list[str]:
    return [peer for peer in PEERS if any(row.get(f"{peer}_ratio") for row in rows)]


def ratios(row: Row, peers: list[str]) -> list[str]:
    return [row.get(f"{peer}_ratio") or "–" for peer in peers]


def networks(rows: list[Row]) -> None:
    """A line a network: back to back, then after a pause."""
    peers = peers_in(rows)
    names = [PEERS[peer] for peer in peers]
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        steady, idle = (row for row in rows if row["network"] == network)
        first = [network, f"{float(steady['ours_ms']):.1f}", *ratios(steady, peers)]
        lines.append([*first, f"{float(idle['ours_ms']):.1f}", *ratios(idle, peers)])
    print_table(["network", "ms", *names, "after 20 ms: ms", *names], lines)


def layers(rows: list[Row]) -> None:
    """A line a layer."""
    peers = peers_in(rows)
    lines = [[title(row["case"]), row["ours_ms"], row["of_peak"], *ratios(row, peers)] for row in rows]
    print_table(["kernel, channels, size", "ms", "of peak", *(PEERS[peer] for peer in peers)], lines)


def title(case: str) -> str:
    """ "n1-64to64-224x224-k3x3-p1-relu" as "3×3, 64 → 64, 224 × 224"."""
    kind = re.match(r"(separable|depthwise|n1)-(\d+)(?:to(\d+))?-([\dx]+)-k([\dx]+)", case)
    assert kind is not None, case
    word, cin, cout, size, kernel = kind.groups()
    parts = [("" if word == "n1" else word + " ") + kernel.replace("x", "×"), f"{cin} → {cout}" if cout else cin]
    parts.append(size.replace("x", " × "))
    for letter, name in (("s", "stride {}"), ("d", "dilation {}"), ("g", "{} groups")):
        found = re.search(rf"-{letter}(\d+)", case[kind.end() :])
        if found and found[1] != "1":
            parts.append(name.format(found[1]))
    return ", ".join(parts)


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        print(f"\n{path}: {rows[0]['cpu']}, commits {' '.join(dict.fromkeys(row['commit'] for row in rows))}\n")
        (networks if "network" in rows[0] else layers)(rows)


if __name__ == "__main__":
    main()
