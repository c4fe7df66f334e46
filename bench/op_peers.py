"""The chain of a layer in each library: what bench/ops.py times, one library a process."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import recorded
from layers import Case, Layer, make

Run = Callable[[], Any]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def fastnets(layer: Layer, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    from fastnets.ops.layout import channels_last, empty_channels_last

    x, layers, buffers = channels_last(layer.inputs()).to(TYPES[dtype]), [], []
    for i in range(layer.length):
        layers.append(_packed(layer.parts, i, dtype))
        shape = (1, layer.parts[-1].cout, *make(layer.parts[-1]).out_shape[2:])
        buffers.append(empty_channels_last(x, shape) if i < 2 else buffers[i - 2])

    def chain() -> torch.Tensor:
        y = x
        for packed, out in zip(layers, buffers, strict=True):
            y = packed(y, out=out)
        return y

    chain()  # chooses kernels, and packs weights
    run = recorded(chain, [x, *buffers[:2]], threads)
    return run, run


def _packed(parts: tuple[Case, ...], seed: int, dtype: str) -> Callable[..., torch.Tensor]:
    from fastnets.ops import PackedConv, PackedSeparable

    case, calls = parts[0], [make(part, seed=seed) for part in parts]
    weights = [call.weight.to(TYPES[dtype]) for call in calls]
    window = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "activation": "relu"}
    if len(parts) == 2:
        return PackedSeparable(*weights, calls[1].bias, **window)
    return PackedConv(*weights, calls[0].bias, groups=case.groups, **window)


def pytorch(layer: Layer, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    x = layer.inputs()
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    chain, x = layer.chain().to(TYPES[dtype], memory_format=last), x.to(TYPES[dtype], memory_format=last)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            result: torch.Tensor = chain(x)
        return result

    return run, run


def openvino(layer: Layer, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    """Its ends are fp32 in either type, as those of a network."""
    import openvino as ov

    x = layer.inputs()
    model = ov.convert_model(layer.chain(), example_input=x)
    model.reshape(list(x.shape))
    precision = {"fp32": "f32", "bf16": "bf16"}[dtype]
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(np.ascontiguousarray(x.numpy())))
    return request.infer, lambda: torch.from_numpy(next(iter(request.infer().values())))


def onnxruntime(layer: Layer, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    import onnxruntime as ort

    if dtype != "fp32":
        raise NotImplementedError
    x, file = layer.inputs(), io.BytesIO()
    torch.onnx.export(layer.chain(), (x,), file, input_names=["x"], dynamo=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed), lambda: torch.from_numpy(session.run(None, feed)[0])


def ncnn(layer: Layer, threads: int, dtype: str) -> tuple[Run, Callable[[], torch.Tensor]]:
    """2D only: its 3D convolution is a plain loop."""
    import ncnn as library

    if len(layer.parts[0].size) == 3 or dtype != "fp32":
        raise NotImplementedError
    net, param, weights = library.Net(), [], []
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    for seed in range(layer.length):
        for case in layer.parts:
            call, count = make(case, seed=seed), len(param)
            kind, extra = ("ConvolutionDepthWise", f" 7={case.groups}") if case.groups > 1 else ("Convolution", "")
            pad = case.padding if isinstance(case.padding, int) else 0
            param.append(
                f"{kind} c{count} 1 1 b{count} b{count + 1} 0={case.cout} 1={case.kernel[1]} 2={case.dilation} "
                f"3={case.stride} 4={pad} 5={int(case.bias)} 6={call.weight.numel()} 9={int(case is layer.parts[-1])}"
                + extra
            )
            flag = b"" if case.groups > 1 and case.cin == case.groups else b"\0\0\0\0"
            bias = b"" if call.bias is None else call.bias.numpy().tobytes()
            weights.append(flag + call.weight.numpy().tobytes() + bias)
    count = len(param)
    text = "\n".join(["7767517", f"{count + 1} {count + 1}", "Input in 0 1 b0", *param, ""])
    folder = Path(__file__).parent / "results"
    model = folder / f".ncnn-{id(net)}"
    model.write_bytes(b"".join(weights))
    try:
        net.load_param_mem(text)
        net.load_model(str(model))
    finally:
        model.unlink()
    image = layer.inputs()[0].numpy().copy()
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
