"""optimize(device="cuda"): with TRITON_INTERPRET=1 its steps in Python on the CPU, else on a GPU, captured.

test_gpu_plans.py starts the first as a process, bench/gpu.sh the second.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_graphs import Squeeze, Tokens, graphs
from fastnets.kernels.launch import recording
from harness import relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_graphs import SLOW, check
from torch import Tensor, nn
from torch.nn import functional

from fastnets import ops
from fastnets.engine import Optimized, optimize
from fastnets.engine.gpu_plan import GpuPlan
from fastnets.errors import InputError
from fastnets.models import create_model
from fastnets.pipeline.predict import predict
from fastnets.tiling.infer import infer, make_plan

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
on_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
HALF = torch.float16 if INTERPRETED else torch.bfloat16
"""The interpreter has no products of bfloat16."""


class Separable(nn.Module):
    """MobileNet's block with a stride, and one without and with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
            nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(), nn.Conv2d(12, 20, 1),
        )  # fmt: skip
        self.wide = nn.Sequential(nn.Conv2d(20, 24, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(24, 24, 5, 1, 2, groups=24), nn.ReLU(), nn.Conv2d(24, 300, 1))
        self.back = nn.Conv2d(300, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y + self.back(self.deep(self.wide(y)))


class Dilated(nn.Module):
    """MeshNet's layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, d in ((1, 1), (5, 2), (5, 4)):
            layers += [nn.Conv3d(inputs, 5, 3, padding=d, dilation=d), nn.BatchNorm3d(5), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv3d(5, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class Residual(nn.Module):
    """ResNet's block, a pool and a classifier; then a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.down = nn.Conv2d(6, 8, 1, 2)
        self.gate, self.head = Squeeze(2, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(self.down(torch.relu(self.two(self.one(x)) + x)))
        logits: Tensor = self.head(y.mean((2, 3))).relu()
        return logits


class InstanceUNet(nn.Module):
    """A 3D U-Net of one level: instance norm, leaky, a stride, a transposed convolution, a join."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
            conv = nn.Conv3d(inputs, outputs, 3, stride, 1)
            return nn.Sequential(conv, nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01))

        self.encode, self.deep = block(1, 4), block(4, 8, 2)
        self.up, self.decode = nn.ConvTranspose3d(8, 4, 2, 2), block(8, 4)
        self.head = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.encode(x)
        logits: Tensor = self.head(self.decode(torch.cat([self.up(self.deep(y)), y], 1)))
        return logits


class Grouped(nn.Module):
    """Groups, a padding on one side, overlapping windows of a transposed convolution, rows of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.pad, self.valid = nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(12, 6, 3)
        self.up, self.prelu, self.tokens = nn.ConvTranspose2d(6, 6, 4, 2, 1), nn.PReLU(6), Tokens(6)
        self.head = nn.Linear(6 * 14 * 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.up(self.valid(self.pad(self.groups(x).relu()))))
        logits: Tensor = self.head(self.tokens(y).flatten(1))
        return logits


class Attentive(nn.Module):
    """A class token, an attention with positions, and a product of two values."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(2, 7, 7))
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.token.expand(len(x), 1, 8), x.roll(2, 1)], 1)
        q, k, v = self.qkv(y).view(len(x), 7, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind()
        y = ((q * 0.5 @ k.mT + self.positions).softmax(-1) @ v).transpose(1, 2).flatten(2)
        y = functional.normalize(y, dim=-1)
        logits: Tensor = self.head(torch.einsum("bij,bjc->bic", y @ y.mT, y).mean(1))
        return logits


class Own(nn.Module):
    """Our own operators in a network's code, one of them as no kernel for a GPU takes it."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {
            "expand": (12, 4),
            "deep": (12, 1, 3, 3),
            "project": (6, 12),
            "twice": (12, 1, 3, 3),
            "point": (5, 12),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape) / 3))

    def forward(self, x: Tensor) -> Tensor:
        y = ops.inverted_bottleneck(x, self.expand, self.deep, self.project, padding=1, middle_activation="relu6")
        return ops.separable(y, self.twice, self.point, padding=1, activation="relu")


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...], tuple[str, ...]]] = {
    "separable": (Separable, (2, 3, 9, 8), ("cuDNN", "triton separable", "triton depthwise", "cuBLAS")),
    "dilated": (Dilated, (1, 1, 6, 5, 7), ("triton product", "cuBLAS")),
    "residual": (Residual, (2, 6, 6, 8), ("cuDNN", "cuBLAS", "torch combine", "torch mean")),
    "instance-unet": (InstanceUNet, (1, 1, 6, 4, 8), ("triton product", "triton norm", "triton transposed")),
    "attentive": (Attentive, (2, 6, 8), ("torch attention", "torch normalize", "torch matmul", "cuBLAS")),
    "own": (Own, (2, 4, 6, 5), ("torch separable",)),
    "grouped": (Grouped, (1, 8, 7, 7), ("triton product", "cuDNN", "cuDNN transposed", "cuBLAS")),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif key.endswith(("running_mean", "bias")):
            value.normal_()
    return model


def image(name: str, seed: int = 1) -> Tensor:
    return torch.randn(NETWORKS[name][1], generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_values(name: str) -> None:
    model, x = network(name), image(name)
    optimized = optimize(model, x, device="cuda")
    y = optimized(x)
    kernels = {row.kernel.split(" + ")[0] for row in optimized.explain(runs=1).rows}
    assert kernels >= set(NETWORKS[name][2])
    assert y.device.type == DEVICE
    assert y.dtype == torch.float32
    assert relative_error(y.cpu(), model.double()(x.double())) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_values_in_16_bits(name: str) -> None:
    model, x = network(name), image(name)
    y = optimize(model, x, device="cuda", dtype="fp16" if INTERPRETED else "bf16")(x)
    assert y.dtype == torch.float32
    assert relative_error(y.cpu(), model.double()(x.double())) <= (3e-3 if INTERPRETED else 3e-2)


@torch.no_grad()
def test_a_network_in_16_bits_stays_so() -> None:
    model, x = network("residual").to(HALF), image("residual").to(HALF)
    y = optimize(model, x, device="cuda")(x)
    assert y.dtype == HALF
    assert relative_error(y.cpu(), model.double()(x.double())) <= 3e-2


@torch.no_grad()
def test_the_callers_autocast_changes_nothing() -> None:
    model, x = network("grouped"), image("grouped")
    optimized = optimize(model, x, device="cuda")
    expected = optimized(x)
    with torch.autocast(DEVICE, torch.bfloat16):
        optimized.release()
        assert torch.equal(optimized(x), expected)


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW, derandomize=True)
@pytest.mark.parametrize("dims", [2, 3])
@given(data=st.data())
def test_random_graphs(dims: int, data: st.DataObject) -> None:
    net, shape = data.draw(graphs(dims))
    check(net, shape, data.draw(st.sampled_from(["channels_first", "channels_last", "slice"])), device="cuda")


@torch.no_grad()
def test_results_stay_and_weights_follow() -> None:
    model, x = network("residual"), image("residual")
    optimized = optimize(model, x, device="cuda")
    first = optimized(x)
    kept = first.clone()
    optimized(image("residual", 2))
    assert torch.equal(first, kept)
    model.head.weight.mul_(2)
    assert relative_error(optimized(x).cpu(), model.double()(x.double())) <= 1e-5


@torch.no_grad()
def test_saved_and_loaded(tmp_path: Any) -> None:
    model, x = network("separable"), image("separable")
    optimized = optimize(model, x, device="cuda")
    optimized.save(tmp_path / "network.safetensors")
    loaded = Optimized.load(tmp_path / "network.safetensors", device="cuda")
    assert torch.equal(loaded(x), optimized(x))


@torch.no_grad()
def test_kernels_read_weights_as_they_lie() -> None:
    """A weight that a kernel has to copy would be copied at every run, also in a captured graph."""
    for name in ("separable", "dilated", "instance-unet"):
        plan = optimize(network(name), image(name), device="cuda", cuda_graph=False).plan_for(image(name))
        assert isinstance(plan, GpuPlan)
        weights = {t.data_ptr() for node in plan.graph.nodes if node.kernel for t in _weights(node.kernel)}
        with recording(90) as launches:
            plan.run([image(name)])
        read = {"weight", "depthwise", "pointwise"}
        used = [t for launch in launches if launch.kernel.__name__ != "_taps" for t in _named(launch.arguments, read)]
        assert len(used) >= 3
        assert all(t.dim() == 1 or t.data_ptr() in weights for t in used)


def _weights(kernel: Any) -> list[Tensor]:
    parts = [kernel, getattr(kernel, "depthwise", None), getattr(kernel, "pointwise", None)]
    return [t for part in parts for t in getattr(part, "packs", {}).values()]


def _named(arguments: dict[str, Any], names: set[str]) -> list[Tensor]:
    return [value for name, value in arguments.items() if name in names and isinstance(value, Tensor)]


def test_memory_is_known_before_a_run() -> None:
    """Values of a chain: two are alive at a time; 16 bits take half."""
    chain = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))).eval()
    shape = (1, 8, 16, 16)
    value = 4 * 8 * 16 * 16
    optimized = optimize(chain, torch.zeros(shape), device="cuda")
    assert optimized.peak_memory(shape) == 2 * value + 3 * value
    assert optimize(chain, torch.zeros(shape), device="cuda", dtype="bf16").peak_memory(shape) == 5 * value // 2


def test_arguments() -> None:
    model, x = network("residual"), image("residual")
    with pytest.raises(InputError, match="pass 'cpu' or 'cuda'"):
        optimize(model, x, device="xpu")
    with pytest.raises(InputError, match="dtype is 'fp16' on cpu: pass one of fp32, bf16"):
        optimize(model, x, dtype="fp16")


@torch.no_grad()
def test_max_vram_chooses_the_tile() -> None:
    """Tiles of a plan join to the whole; a smaller limit makes more of them, and one too small is refused."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()
    x = torch.randn(1, 2, 24, 20)
    optimized = Optimized(model, device="cuda")
    assert len(make_plan(optimized, tuple(x.shape[1:]), max_vram="8GB")) == 1
    if INTERPRETED:  # the process has more to hold on a GPU than these tiles
        plan = make_plan(optimized, tuple(x.shape[1:]), max_vram=12_000)
        assert len(plan) > 1
        assert plan.tile_bytes <= 12_000
        with pytest.raises(InputError, match="max_vram leaves 100 B for a tile"):
            make_plan(optimized, tuple(x.shape[1:]), max_vram=100)
    with pytest.raises(InputError, match="max_vram=1GB came with a model on the CPU"):
        infer(model, x, max_vram="1GB")
    expected = model.double()(x.double())
    model.float()
    assert relative_error(infer(optimized, x, tile=12), expected) <= 1e-5
    assert torch.equal(infer(optimized, x, tile=12, reduce="argmax")[0], expected.argmax(1).to(torch.uint8)[0])


@on_gpu
@torch.no_grad()
@pytest.mark.parametrize("engine", ["fastnets", "torch"])
def test_predict_on_a_gpu(tmp_path: Path, engine: str) -> None:
    image = Path(__file__).parent / "data" / "histo.jpg"
    shares = []
    for device in ("cpu", "cuda"):
        options: dict[str, Any] = {"device": device, "max_vram": "8GB"} if device == "cuda" else {}
        (result,) = predict(image, tmp_path / device, model="nuclei_demo", spacing=0.5, engine=engine, **options)
        shares.append(result.classes)
    assert shares[0].keys() == shares[1].keys()
    assert all(abs(share - shares[1][name]) <= 1e-3 for name, share in shares[0].items())


@on_gpu
@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "mobilenet_v2", "densenet121"])
def test_a_captured_network_gives_what_its_steps_give(name: str) -> None:
    torch.manual_seed(0)
    model, x = create_model(name).eval(), torch.randn(2, 3, 64, 64, device=DEVICE)
    steps = optimize(model, x, device="cuda", cuda_graph=False)(x)
    optimized = optimize(model, x, device="cuda")
    plan = optimized.plan_for(x)
    assert isinstance(plan, GpuPlan)
    assert plan.no_graph == ""
    for _ in range(3):
        assert relative_error(optimized(x).cpu(), steps.cpu().double()) <= 1e-5
    assert plan.captured is not None
    assert plan.captured.graph is not None


@on_gpu
@torch.no_grad()
def test_threads_and_streams_share_a_captured_network() -> None:
    model = network("instance-unet").cuda()
    inputs = [image("instance-unet", seed).cuda() for seed in range(4)]
    optimized = optimize(model, inputs[0])
    expected = [model(x) for x in inputs]
    torch.cuda.synchronize()
    wrong: list[float] = []

    def work(x: Tensor, want: Tensor) -> None:
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            results = [optimized(x) for _ in range(30)]
            errors = [float((y - want).norm() / want.norm()) for y in results]
        wrong.extend(error for error in errors if not error < 1e-4)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@on_gpu
@torch.no_grad()
def test_runs_within_a_graph_of_the_caller() -> None:
    model, x = network("residual").cuda(), image("residual").cuda()
    optimized = optimize(model, x)
    expected = optimized(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = optimized(x)
    graph.replay()
    assert relative_error(y.cpu(), expected.cpu().double()) <= 1e-5


class Waits(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[x > 0] = 1.0
        return y * 2


@on_gpu
@torch.no_grad()
def test_what_cannot_be_captured_runs_without_and_says_so() -> None:
    x = torch.randn(3, 4, 5, 6)
    optimized = optimize(Waits().eval(), x, device="cuda")
    assert torch.equal(optimized(x).cpu(), Waits()(x))
    assert "no CUDA graph: the CPU has to wait for index_put" in str(optimized.explain(runs=1))
