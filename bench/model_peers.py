"""A network in each library: what bench/models.py times, one library a process.

Inputs and outputs are float32 everywhere; dtype "bf16" is what a library computes in.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from model_zoo import Network
from torch import Tensor

Dtype = Literal["fp32", "bf16"]
Run = Callable[[], Any]
Made = tuple[Run, Callable[[], Tensor]]  # what is timed, and the output


def fastnets(network: Network, threads: int, dtype: Dtype) -> Made:
    from fastnets.engine import optimize

    x = network.input()
    model = optimize(network.model(), x, dtype=dtype)

    def run() -> Tensor:
        with torch.inference_mode():
            y: Tensor = model(x)
        return y

    return run, run


def _channels_last(network: Network, dtype: Dtype) -> tuple[torch.nn.Module, Tensor]:
    last: Any = torch.channels_last_3d if network.is_3d else torch.channels_last
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    return network.model().to(kind, memory_format=last), network.input().to(kind, memory_format=last)


def eager(network: Network, threads: int, dtype: Dtype) -> Made:
    model, x = _channels_last(network, dtype)

    def run() -> Tensor:
        with torch.inference_mode():
            y: Tensor = model(x)
        return y

    return run, lambda: run().float()


def compiled(network: Network, threads: int, dtype: Dtype) -> Made:
    """torch.compile with weights as constants."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    model, x = _channels_last(network, dtype)
    function = torch.compile(model)

    def run() -> Tensor:
        with torch.no_grad():
            y: Tensor = function(x)
        return y

    return run, lambda: run().float()


def openvino(network: Network, threads: int, dtype: Dtype) -> Made:
    import openvino as ov

    x = network.input()
    model = ov.convert_model(network.model(), example_input=x)
    model.reshape(list(x.shape))
    hint = {"fp32": "f32", "bf16": "bf16"}[dtype]
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(np.ascontiguousarray(x.numpy())))
    return request.infer, lambda: torch.from_numpy(next(iter(request.infer().values())))


def onnxruntime(network: Network, threads: int, dtype: Dtype) -> Made:
    if dtype != "fp32":
        raise NotImplementedError("ONNX Runtime has no bfloat16 convolutions on a CPU")
    import onnxruntime as ort

    x, file = network.input(), io.BytesIO()
    torch.onnx.export(network.model(), (x,), file, input_names=["x"], dynamo=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed), lambda: torch.from_numpy(session.run(None, feed)[0])


def ncnn(network: Network, threads: int, dtype: Dtype) -> Made:
    """2D and batch 1 only: ncnn has no batches, and its 3D convolution is a plain loop."""
    if network.is_3d or network.shape[0] > 1:
        raise NotImplementedError("ncnn has no batches and no fast 3D convolution")
    import ncnn as library
    import pnnx

    x = network.input()
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "net.pt"
        torch.jit.trace(network.model(), x, check_trace=False).save(str(traced))
        # Its converter itself: pnnx.export also imports a Python file, which is not valid for all names of layers.
        shape = ",".join(map(str, network.shape))
        command = [str(Path(pnnx.__file__).with_name("pnnx")), str(traced), f"inputshape=[{shape}]", "fp16=0"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        net = library.Net()
        net.opt.num_threads = threads
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = dtype == "bf16"
        net.load_param(str(Path(folder) / "net.ncnn.param"))
        net.load_model(str(Path(folder) / "net.ncnn.bin"))
    image = x[0].numpy().copy()
    mat = library.Mat(image)  # reads the memory of `image`

    def run() -> tuple[Any, Any]:
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        return extractor.extract("out0")[1], (extractor, image)  # which own the memory

    def result() -> Tensor:
        y, _owners = run()
        return torch.from_numpy(np.array(y))[None]

    return run, result


LIBRARIES: dict[str, Callable[[Network, int, Dtype], Made]] = {
    "fastnets": fastnets,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
    "torch": eager,
    "ncnn": ncnn,
    "compile": compiled,
}
PACKAGES = {"torch": "torch", "openvino": "openvino", "onnxruntime": "onnxruntime", "ncnn": "ncnn"}
