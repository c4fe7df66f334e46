"""A chain of equal convolutions with ReLU in each library: what bench/ops.py times, one library a process.

A chain, because a library that stores tensors in a layout of its own converts once at its ends, as it would in a
network; the time is divided by the length.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import recorded
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cases.conv import Case, make

Run = Callable[[], Any]
LENGTH = 4
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def length(case: Case) -> int:
    """Layers of the chain: 1 where the output cannot be the next input."""
    return LENGTH if case.cin == case.cout and case.stride == 1 else 1


def torch_chain(case: Case) -> nn.Sequential:
    """The chain as a torch module; every layer has weights of its own."""
    kind = nn.Conv2d if len(case.size) == 2 else nn.Conv3d
    layers: list[nn.Module] = []
    for i in range(length(case)):
        call = make(case, seed=i)
        layer = kind(
            case.cin,
            case.cout,
            case.kernel,
            case.stride,
            case.padding,
            case.dilation,
            case.groups,  # type: ignore[arg-type]
        )
        assert call.bias is not None
        layer.weight.data.copy_(call.weight)
        layer.bias.data.copy_(call.bias)
        layers += [layer, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers).eval()


def inputs(case: Case) -> torch.Tensor:
    return make(case).x


def fastnets(case: Case, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    from fastnets.ops.conv import PackedConv
    from fastnets.ops.layout import channels_last, empty_channels_last

    x, layers, buffers = channels_last(inputs(case)).to(TYPES[dtype]), [], []
    shape = x.shape
    for i in range(length(case)):
        call = make(case, seed=i)
        layers.append(
            PackedConv(
                call.weight.to(TYPES[dtype]),
                call.bias,
                stride=case.stride,
                padding=case.padding,
                dilation=case.dilation,
                groups=case.groups,
                activation="relu",
            )
        )
        layers[-1].prepare(shape)
        shape = call.out_shape
        buffers.append(empty_channels_last(x, shape) if i < 2 else buffers[i - 2])

    def chain() -> torch.Tensor:
        y = x
        for layer, out in zip(layers, buffers, strict=True):
            y = layer(y, out=out)
        return y

    run = recorded(chain, [x, *buffers[:2]], threads)
    return run, run


def pytorch(case: Case, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    last = torch.channels_last if len(case.size) == 2 else torch.channels_last_3d
    chain, x = torch_chain(case).to(TYPES[dtype], memory_format=last), inputs(case).contiguous(memory_format=last)
    x = x.to(TYPES[dtype])

    def run() -> torch.Tensor:
        with torch.inference_mode():
            result: torch.Tensor = chain(x)
        return result

    return run, run


def openvino(case: Case, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    """Its ends are fp32 in either type, as those of a network."""
    import openvino as ov

    x = inputs(case)
    model = ov.convert_model(torch_chain(case), example_input=x)
    model.reshape(list(x.shape))
    precision = {"fp32": "f32", "bf16": "bf16"}[dtype]
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(np.ascontiguousarray(x.numpy())))
    return request.infer, lambda: torch.from_numpy(next(iter(request.infer().values())))


def onnxruntime(case: Case, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    import onnxruntime as ort

    if dtype != "fp32":
        raise NotImplementedError
    x, file = inputs(case), io.BytesIO()
    torch.onnx.export(torch_chain(case), (x,), file, input_names=["x"], dynamo=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed), lambda: torch.from_numpy(session.run(None, feed)[0])


def ncnn(case: Case, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    """2D only: its 3D convolution is a plain loop."""
    import ncnn as library

    if len(case.size) == 3 or dtype != "fp32":
        raise NotImplementedError
    net, param, weights = library.Net(), [], []
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    count = length(case)
    for i in range(count):
        call = make(case, seed=i)
        assert call.bias is not None
        kind, extra = ("ConvolutionDepthWise", f" 7={case.groups}") if case.groups > 1 else ("Convolution", "")
        pad = case.padding if isinstance(case.padding, int) else 0
        param.append(
            f"{kind} c{i} 1 1 b{i} b{i + 1} 0={case.cout} 1={case.kernel[1]} 2={case.dilation} 3={case.stride} "
            f"4={pad} 5=1 6={call.weight.numel()} 9=1{extra}"
        )
        flag = b"" if case.groups > 1 and case.cin == case.groups else b"\0\0\0\0"
        weights.append(flag + call.weight.numpy().tobytes() + call.bias.numpy().tobytes())
    text = "\n".join(["7767517", f"{count + 1} {count + 1}", "Input in 0 1 b0", *param, ""])
    folder = Path(__file__).parent / "results"
    model = folder / f".ncnn-{id(net)}"
    model.write_bytes(b"".join(weights))
    try:
        net.load_param_mem(text)
        net.load_model(str(model))
    finally:
        model.unlink()
    image = inputs(case)[0].numpy().copy()
    x = library.Mat(image)  # reads the memory of `image`

    def run() -> tuple[Any, Any]:
        extractor = net.create_extractor()
        extractor.input("b0", x)
        return extractor.extract(f"b{count}")[1], (extractor, image)  # which own the memory

    def result() -> torch.Tensor:
        y, _owners = run()
        return torch.from_numpy(np.array(y))[None]

    return run, result


LIBRARIES = {
    "fastnets": fastnets,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
    "ncnn": ncnn,
    "torch": pytorch,
}
