"""The result files as tables.

python bench/tables.py > bench/results/README.md  # all of them
python bench/tables.py --summary                  # the two that the project's README.md shows
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PEERS = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "ncnn": "ncnn", "torch": "torch", "compile": "compile"}
Row = dict[str, str]
KINDS = {
    "3×3, 28 × 28 and larger": r"3×3, \d+ → \d+, (?!14)\d+ × \d+$",
    "3×3, 14 × 14": r"3×3, .*, 14 × 14$",
    "3×3, dilated": r"3×3, .*dilation",
    "3×3×3": r"3×3×3",
    "1×1": r"1×1",
    "stride 2": r"\d×.*stride 2",
    "32 groups": r"\d×.*groups",
    "separable": r"separable",
    "depthwise": r"depthwise \d×\d,",
    "depthwise 3×3×3": r"depthwise 3×3×3",
}
"""Of layers, by their titles."""


def rows_of(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
        second = [f"{float(idle['ours_ms']):.1f}", *ratios(idle, peers)]
        lines.append([*first, *second, steady.get("round_trip_ns") or "–"])
    print_table(["network", "ms", *names, "after 20 ms: ms", *names, "line to a core and back, ns"], lines)


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


def kinds(rows: list[Row]) -> None:
    """A line for each kind of layer: from the least to the largest ratio."""
    peers = peers_in(rows)
    lines = []
    for name, pattern in KINDS.items():
        mine = [row for row in rows if re.match(pattern, title(row["case"]))]
        if mine:
            spans = [[float(row[f"{peer}_ratio"]) for row in mine if row.get(f"{peer}_ratio")] for peer in peers]
            lines.append([name, str(len(mine)), *(span(values) for values in spans)])
    print_table(["kernel", "layers", *(PEERS[peer] for peer in peers)], lines)


def span(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{min(values):.2f} to {max(values):.2f}" if min(values) < max(values) else f"{values[0]:.2f}"


def best(paths: dict[str, Path]) -> None:
    """A line a network: the ratio of the fastest other library, back to back, in each file."""
    tables = {name: {row["network"]: row for row in rows_of(path)[::2]} for name, path in paths.items()}
    found = dict.fromkeys(network for table in tables.values() for network in table)
    lines = []
    for network in found:
        cells = [table.get(network) for table in tables.values()]
        lines.append(
            [network, *(f"{cell['best_ratio']} ({PEERS[cell['best_peer']]})" if cell else "–" for cell in cells)]
        )
    print_table(["network", *paths], lines)


def of_others(rows: list[Row]) -> str:
    """How many times as fast, from the least to the largest ratio."""
    said = []
    for peer in ("torch", "openvino"):
        ratios = [float(row[f"{peer}_ratio"]) for row in rows if row.get(f"{peer}_ratio")]
        if ratios:
            count = "" if len(ratios) == len(rows) else f" (of {len(ratios)})"
            said.append(f"{PEERS[peer]}{count} {span(ratios)}, {statistics.median(ratios):.2f} in the middle")
    worst = max(float(row["error"]) for row in rows)
    return f"{len(rows)} networks: {'; '.join(said)}; errors up to {worst:.1e} of the largest value."


def others(rows: list[Row]) -> None:
    """A line a network of another package, and one of all before them."""
    print(of_others(rows) + "\n")
    names = {"ours_ms": "ms", "torch_ratio": "torch", "openvino_ratio": "OpenVINO", "torch_share": "torch's steps"}
    names |= {"error": "error", "torch_error": "of torch"}
    if not any(row.get("openvino_ratio") for row in rows):
        del names["openvino_ratio"]
    lines = [[f"{r['package']} {r['network']}", r["shape"], *(r.get(name) or "–" for name in names)] for r in rows]
    print_table(["network", "input", *names.values()], lines)


SECTIONS = {"models": networks, "ops": layers, "others": others}
"""By the first word of a file's name."""


def summary() -> None:
    zen_5, zen_4 = RESULTS / "amd-epyc-family-26-model-2", RESULTS / "amd-epyc-family-25-model-17"
    xeon = RESULTS / "intel-r-xeon-r-processor-family-6-model-207"
    models = "models_{}_2threads_avx512_bf16.csv"
    best(
        {
            "Zen 5, fp32": zen_5 / models.format("fp32"),
            "Zen 5, bf16": zen_5 / models.format("bf16"),
            "Zen 4, fp32": zen_4 / models.format("fp32"),
            "Zen 4, bf16": zen_4 / models.format("bf16"),
            "Xeon, fp32": xeon / "models_fp32_2threads_amx_bf16.csv",
            "Xeon, bf16": xeon / "models_bf16_2threads_amx_bf16.csv",
        }
    )
    print()
    kinds(rows_of(zen_5 / "ops_2threads_avx512_bf16.csv"))
    print()
    print("Zen 5, " + of_others(rows_of(zen_5 / "others_fp32_2threads_avx512_bf16.csv")))
    print()
    print("Xeon, " + of_others(rows_of(xeon / "others_fp32_2threads_amx_bf16.csv")))


def report() -> None:
    print("# Results\n")
    print("Time of each library over ours: above 1, ours is faster. Printed by `python bench/tables.py` from the files")
    print("beside this one, whose columns of spread say how steady each row is.\n")
    print("- `models_*`: whole networks, batch 1 where nothing else is said (`python bench/models.py`).")
    print(
        "- `others_*`: networks of other packages (`python bench/others.py`). *torch's steps*: their part of our time."
    )
    print("  Errors are the largest difference from torch in float64, over the largest value.")
    print("- `ops_*`: one layer of a chain with ReLU, medians (`python bench/ops.py`). *of peak* counts the direct")
    print("  algorithm's operations: above 1 where another multiplies less. In `ops_*_avx2` on a machine with AVX-512,")
    print("  ours and torch are limited to AVX2.")
    for path in sorted(RESULTS.glob("*/*.csv")):
        kind = path.name.split("_")[0]
        if kind in SECTIONS:
            rows = rows_of(path)
            about = rows[0]
            print(f"\n## {path.parent.name}: {path.stem}\n")
            commits = " ".join(dict.fromkeys(row["commit"] for row in rows))
            print(f"{about['cpu']}, {about['threads']} threads, {about['isa']}; commits {commits}.\n")
            SECTIONS[kind](rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="only what README.md shows")
    (summary if parser.parse_args().summary else report)()


if __name__ == "__main__":
    main()
