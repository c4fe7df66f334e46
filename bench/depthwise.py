"""Depthwise and separable convolutions against torch, OpenVINO and ONNX Runtime.

    python bench/depthwise.py [--threads 2] [--only TEXT] [--clock cpu] [--dtype bf16]

Each engine runs in a process of its own; calls alternate between them, so that all see the same machine. Layers
with as many outputs as inputs run as a chain of four, divided by four, so that no engine pays for changing the
layout of its input. Engines that are not installed are left out. Writes bench/results/depthwise.csv, or
depthwise_bf16.csv.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.util
import io
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import commit, cpu_model, recorded
from sliding_window import spread
from torch import Tensor, nn

from fastnets import _C

PAUSE_S = 0.02  # threads of the other processes stop spinning
RESULTS = Path(__file__).parent / "results"
ENGINES = {"fp32": ("fastnets", "torch", "openvino", "onnxruntime"), "bf16": ("fastnets", "torch", "openvino")}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """One layer; `cout` 0 for a depthwise convolution alone."""

    cin: int
    cout: int
    size: tuple[int, ...]
    kernel: int = 3
    stride: int = 1
    dilation: int = 1

    @property
    def name(self) -> str:
        layer = f"dw{self.kernel}+pw {self.cin}-{self.cout}" if self.cout else f"dw{self.kernel} {self.cin}"
        shape = "x".join(map(str, self.size))
        return f"{layer} {shape} s{self.stride} d{self.dilation}"

    @property
    def layers(self) -> int:
        """The length of the chain."""
        return 4 if self.stride == 1 and self.cout in (0, self.cin) else 1

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel // 2)

    def flops(self) -> float:
        """Of one layer, two for each multiplication."""
        pixels = torch.Size([-(-n // self.stride) for n in self.size]).numel()
        return 2.0 * pixels * self.cin * (self.kernel ** len(self.size) + self.cout)

    def model(self) -> nn.Module:
        """The chain in torch, ReLU after each layer; the same random weights everywhere."""
        torch.manual_seed(0)
        kind = (nn.Conv2d, nn.Conv3d)[len(self.size) - 2]
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        layers: list[nn.Module] = []
        for _ in range(self.layers):
            layers.append(kind(self.cin, self.cin, self.kernel, **window, groups=self.cin, bias=not self.cout))
            layers += [kind(self.cin, self.cout, 1)] if self.cout else []
            layers.append(nn.ReLU())
        return nn.Sequential(*layers).eval()

    def input(self) -> Tensor:
        x = torch.randn(1, self.cin, *self.size, generator=torch.Generator().manual_seed(1))
        return x.contiguous(memory_format=(torch.channels_last, torch.channels_last_3d)[len(self.size) - 2])


MOBILENET = [
    Case(32, 64, (112, 112)),
    Case(64, 128, (112, 112), stride=2),
    *(Case(c, c, (n, n)) for c, n in ((128, 56), (256, 28), (512, 14), (1024, 7))),
]
XCEPTION = [Case(c, c, (n, n)) for c, n in ((128, 147), (256, 74), (728, 37), (728, 19), (1536, 10))]
ALONE = [
    Case(128, 0, (112, 112)),
    Case(64, 0, (112, 112), stride=2),
    Case(728, 0, (19, 19)),
    Case(240, 0, (28, 28), kernel=5),
    Case(64, 0, (128, 128), dilation=4),
    Case(32, 0, (64, 64, 64)),
    *(Case(32, 0, (64, 64, 64), dilation=d) for d in (2, 4)),
    Case(21, 0, (96, 96, 96), dilation=4),
]
CASES = MOBILENET + XCEPTION + ALONE


def prepare(engine: str, case: Case, threads: int, dtype: str) -> Run:
    """A call of the chain on that engine. OpenVINO takes and gives fp32, as networks do at their ends."""
    model, x = case.model(), case.input()
    if engine in ("fastnets", "torch"):
        model, x = model.to(TYPES[dtype]), x.to(TYPES[dtype])
    if engine == "fastnets":
        return _fastnets(case, model, x, threads)
    if engine == "torch":
        fast = model.to(memory_format=torch.channels_last) if x.dim() == 4 else model
        return lambda: fast(x)
    if engine == "openvino":
        return _openvino(model, x, threads, dtype)
    return _onnxruntime(model, x, threads)


def _fastnets(case: Case, model: nn.Module, x: Tensor, threads: int) -> Run:
    from fastnets.ops.conv_packed import PackedConv
    from fastnets.ops.separable import PackedSeparable

    window = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "activation": "relu"}
    convolutions = [layer for layer in model.children() if not isinstance(layer, nn.ReLU)]
    layers: list[PackedConv | PackedSeparable]
    if case.cout:
        pairs = zip(convolutions[::2], convolutions[1::2], strict=True)
        layers = [PackedSeparable(dw.weight, pw.weight, pw.bias.detach(), **window) for dw, pw in pairs]
    else:
        layers = [PackedConv(dw.weight, dw.bias, groups=case.cin, **window) for dw in convolutions]
    spare = [layers[0](x) for _ in range(2)]  # in turn, as an engine that plans its memory does
    buffers = [x, *(spare[i % 2] for i in range(len(layers)))]

    def chain() -> Tensor:
        for layer, before, after in zip(layers, buffers, buffers[1:], strict=False):
            layer(before, out=after)
        return buffers[-1]

    return recorded(chain, [x, *spare], threads)


def _openvino(model: nn.Module, x: Tensor, threads: int, dtype: str) -> Run:
    import openvino

    converted = openvino.convert_model(model, example_input=x)
    converted.reshape(list(x.shape))
    precision = {"fp32": "f32", "bf16": "bf16"}[dtype]
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(converted, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.contiguous().numpy()))

    def run() -> Tensor:
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return run


def _onnxruntime(model: nn.Module, x: Tensor, threads: int) -> Run:
    import onnxruntime

    file, array = io.BytesIO(), x.contiguous().numpy()
    torch.onnx.export(model, (x,), file, input_names=["x"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda: torch.from_numpy(session.run(None, {"x": array})[0])


@torch.inference_mode()
def work(engine: str, threads: int, clock: str, dtype: str) -> None:
    """Answer each case number on stdin with the milliseconds of one call, or -1 where its result is wrong."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    ready = -1
    for line in sys.stdin:
        if ready != int(line):
            ready = int(line)
            case = CASES[ready]
            run = prepare(engine, case, threads, dtype)
            expected = case.model().double()(case.input().double())
            correct = (run().double() - expected).norm() <= TOLERANCE[dtype] * expected.norm()
            run()
        now = time.process_time if clock == "cpu" else time.perf_counter
        start = now()
        run()
        print((now() - start) * 1e3 if correct else -1, flush=True)


def measure(workers: dict[str, subprocess.Popen[str]], number: int, repeats: int) -> dict[str, list[float]]:
    """The times of each engine on one case, taken in turns; the first turn is a warm-up."""
    times: dict[str, list[float]] = {engine: [] for engine in workers}
    for turn in range(repeats + 1):
        for engine, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            time.sleep(PAUSE_S)
            worker.stdin.write(f"{number}\n")
            worker.stdin.flush()
            elapsed = float(worker.stdout.readline() or "nan")
            if elapsed < 0:
                raise SystemExit(f"{CASES[number].name}: {engine} returns a wrong result; nothing reported")
            if turn:
                times[engine].append(elapsed / CASES[number].layers)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a busy machine, one thread")
    parser.add_argument("--dtype", choices=list(TYPES), default="fp32")
    parser.add_argument("--worker", choices=ENGINES["fp32"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads, options.clock, options.dtype)
        return
    command = [sys.executable, __file__, "--threads", str(options.threads), "--clock", options.clock]
    command += ["--dtype", options.dtype, "--worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    engines = [name for name in ENGINES[options.dtype] if importlib.util.find_spec(name)]
    workers = {name: subprocess.Popen([*command, name], text=True, **pipes) for name in engines}
    rows = []
    peak = max(_C.peak_flops(options.threads, options.dtype == "bf16") for _ in range(40)) / 1e9
    for number, case in enumerate(CASES):
        if options.only not in case.name:
            continue
        times = measure(workers, number, options.repeats)
        ours = statistics.median(times["fastnets"])
        for peer in engines[1:]:
            rows.append(
                {
                    "commit": commit(),
                    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                    "cpu": cpu_model(),
                    "threads": options.threads,
                    "clock": options.clock,
                    "case": case.name,
                    "peer": peer,
                    "ours_ms": round(ours, 3),
                    "peer_ms": round(statistics.median(times[peer]), 3),
                    "ratio": round(statistics.median(times[peer]) / ours, 2),
                    "best_ratio": round(min(times[peer]) / min(times["fastnets"]), 2),
                    "ours_spread": round(spread(times["fastnets"]), 2),
                    "peer_spread": round(spread(times[peer]), 2),
                    "gflops": round(case.flops() / ours / 1e6, 1),
                    "share_of_peak": round(case.flops() / ours / 1e6 / peak, 2),
                }
            )
            row = rows[-1]
            print(
                f"{case.name}: {row['ours_ms']} ms ({row['gflops']} GF/s, {row['share_of_peak']} of peak), {peer} "
                f"{row['peer_ms']} ms, ratio {row['ratio']}, of the best times {row['best_ratio']}",
                flush=True,
            )
    for worker in workers.values():
        worker.communicate()
    if options.only or not rows:
        return
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / ("depthwise.csv" if options.dtype == "fp32" else "depthwise_bf16.csv")
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
