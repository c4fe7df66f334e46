"""A volume by sliding windows through one network on a GPU: ours against MONAI, and the memory that labels take."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from gpu_networks import NETWORKS, memory_format
from gpu_timing import peak_bytes
from torch import Tensor

import fastnets
from fastnets.tiling.sliding_labels import sliding_window_labels

OPTIONS: dict[str, Any] = {"overlap": 0.5, "mode": "gaussian"}
WINDOWS = 4
"""A call of the network."""


def volume_row(*, small: bool) -> dict[str, Any]:
    """512^3, windows of 128^3: the result and its labels. Ratio of MONAI's time to ours; memory of both to labels."""
    if find_spec("monai") is None:
        return {"note": "monai is not installed"}
    from monai.inferers import sliding_window_inference as of_monai

    network, roi = NETWORKS[0], 4 if small else 128
    device = torch.device("cpu" if small else "cuda")
    half = torch.float32 if small else torch.bfloat16
    model, layout = network.model(small=small).to(device), memory_format(network.shape)
    example = torch.randn(WINDOWS, 1, roi, roi, roi, device=device)
    ours = fastnets.optimize(model, example, device="cuda", dtype="fp32" if small else "bf16")
    peer = network.model(small=small).to(device, half)

    def predict(windows: Tensor) -> Tensor:
        return peer(windows.to(half).contiguous(memory_format=layout)).float()

    x = torch.randn(1, 1, *(6, 4, 4) if small else (512, 512, 512), device=device)
    for count in range(1, 0 if small else WINDOWS + 1):  # a batch, and what is left of the windows of a band or of all
        ours(example[:count])
        predict(example[:count])
    theirs, their_seconds = timed(lambda: of_monai(x, roi, WINDOWS, predict, **OPTIONS), device)
    mine, seconds = timed(lambda: fastnets.sliding_window_inference(x, roi, WINDOWS, ours, **OPTIONS), device)
    error = float((mine - theirs).norm() / theirs.norm())
    labels, _ = timed(lambda: sliding_window_labels(x, roi, WINDOWS, ours, **OPTIONS), device)
    different = float((labels != theirs.argmax(1)).float().mean())
    row: dict[str, Any] = {"error": f"{error:.1e}"}
    if not (error <= (1e-4 if small else 5e-2) and different <= (1e-3 if small else 0.05)):
        return {**row, "note": f"WRONG: {different:.1%} of the labels differ"}
    if small:
        return {**row, "note": "checked, not timed"}
    del mine, theirs, labels
    own = peak_bytes(lambda: sliding_window_labels(x, roi, WINDOWS, ours, **OPTIONS))
    own += ours.peak_memory(tuple(example.shape))  # a captured graph has its memory already
    return {
        **row,
        "ms": round(1e3 * seconds, 1),
        "eager_ratio": round(their_seconds / seconds, 2),
        "peak_mb": own >> 20,
        "eager_peak_mb": peak_bytes(lambda: of_monai(x, roi, WINDOWS, predict, **OPTIONS).argmax(1)) >> 20,
    }


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """The result of one run, and its seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - begin
