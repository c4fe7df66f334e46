"""optimize(): what users do with an optimized module."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fastnets
from fastnets.engine import Optimized, optimize
from fastnets.engine.kernels import Torch
from fastnets.engine.kernels_conv import Conv, Separable
from fastnets.errors import InputError


class Small(nn.Module):
    """Every fusion once: batch norm, residual, activation, a separable pair, a join, a flattened linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.pointwise = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(24 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        y = torch.relu(self.pointwise(self.depthwise(y)) + y)
        y = torch.cat([y, self.up(self.pool(y))], 1)
        y = torch.nn.functional.avg_pool2d(y, 2)
        return self.head(y.flatten(1))


def small() -> Small:
    torch.manual_seed(0)
    model = Small().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def image(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def assert_same(actual: torch.Tensor, expected: torch.Tensor, limit: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    assert float((actual.double() - expected.double()).norm()) <= limit * float(expected.double().norm())


@torch.no_grad()
def test_fuses_and_agrees() -> None:
    model = small()
    optimized = fastnets.optimize(model, image())
    assert_same(optimized(image()), model.double()(image().double()))
    kernels = [row.kernel for row in optimized.explain(runs=1).rows]
    assert kernels[0].startswith("conv")
    assert kernels[0].endswith("scale + relu")
    assert sum(kernel.startswith("separable") for kernel in kernels) == 1
    assert kernels[1].endswith("residual + relu")
    assert not any(kernel.startswith(("torch", "activation")) for kernel in kernels)
    assert len(kernels) == 6


@torch.no_grad()
@pytest.mark.parametrize("inference", [False, True])
def test_other_shapes_and_layouts_get_their_plan(inference: bool) -> None:
    model = small()
    with torch.inference_mode() if inference else torch.no_grad():
        optimized = optimize(model, image())
        for batch in (3, 0, 1, 3):
            x = image(batch)
            assert_same(optimized(x), model(x))
            assert_same(optimized(x.to(memory_format=torch.channels_last)), model(x))


def test_a_model_built_under_inference_mode_is_named() -> None:
    with torch.inference_mode():
        model = small()
    with pytest.raises(InputError, match=r"was built under torch.inference_mode\(\)"):
        optimize(model, image())
    with torch.inference_mode():
        model.requires_grad_(False)
    x = image()
    with torch.no_grad():
        assert_same(optimize(model, x)(x), model(x))


class Outputs(nn.Module):
    def forward(self, x: torch.Tensor, *, scale: float = 2.0) -> dict[str, Any]:
        y = torch.relu(x)
        return {"same": x, "list": [y, y[:, :1] * scale], "sum": y.sum(), "order": y.argmax(1), "text": "kept"}


@torch.no_grad()
def test_outputs_keep_their_structure() -> None:
    model, x = Outputs(), image()
    expected, actual = model.eval()(x, scale=3.0), optimize(model, x)(x, scale=3.0)
    assert actual.keys() == expected.keys()
    assert actual["text"] == "kept"
    for a, b in zip([actual["same"], *actual["list"]], [expected["same"], *expected["list"]], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(actual["order"], expected["order"])
    assert_same(actual["sum"], expected["sum"])


@torch.no_grad()
def test_results_stay_when_the_module_runs_again() -> None:
    optimized = optimize(small(), image())
    first = optimized(image())
    kept = first.clone()
    optimized(torch.full_like(image(), 7.0))
    assert torch.equal(first, kept)


@torch.no_grad()
def test_threads_share_a_module() -> None:
    model = small()
    optimized = optimize(model, image())
    inputs = [torch.randn(1, 3, 16, 16) for _ in range(4)]
    wrong = []

    def work(x: torch.Tensor) -> None:
        with torch.no_grad():
            expected = model(x)
            for _ in range(50):
                error = float((optimized(x) - expected).norm() / expected.norm())
                if not error < 1e-5:
                    wrong.append(error)

    threads = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.no_grad()
def test_changed_weights_are_used() -> None:
    model = small()
    optimized = optimize(model, image())
    model.stem[0].weight.mul_(-2)
    assert_same(optimized(image()), model(image()))  # a counted change
    model.head.weight.data = model.head.weight.data + 1
    optimized.refresh()
    assert_same(optimized(image()), model(image()))


def test_training_is_refused() -> None:
    with pytest.raises(InputError, match="training mode"):
        optimize(small().train(), image())
    optimized = optimize(small(), image())
    with pytest.raises(InputError, match=r"train \.original"):
        optimized.train()
    assert optimized.eval() is optimized


def test_inputs_with_gradients_run_the_original() -> None:
    model = small()
    optimized = optimize(model, image())
    x = image().requires_grad_()
    with pytest.warns(UserWarning, match="requires gradients"):
        y = optimized(x)
    y.sum().backward()
    assert x.grad is not None
    with pytest.raises(InputError, match="requires gradients"):
        optimize(model, image(), strict=True)(x)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the place that the error must name
            return x
        return -x


def test_control_flow_on_data_names_the_place() -> None:
    with pytest.raises(InputError, match=r"test_engine\.py:\d+"):
        optimize(Branches().eval(), image())


@torch.no_grad()
def test_compile_backend() -> None:
    model = small()
    compiled = torch.compile(model, backend="fastnets")
    for batch in (1, 2):
        assert_same(compiled(image(batch)), model(image(batch)))
    model.head.bias.add_(1)
    assert_same(compiled(image()), model(image()))


@torch.no_grad()
def test_peak_memory_is_what_a_run_takes() -> None:
    optimized = optimize(small(), image())
    plan = optimized.plan_for(image())
    buffers = [buffer for buffer in plan.storage.buffers if not buffer.external]
    for a in buffers:
        assert a.offset + a.bytes <= plan.storage.bytes
        for b in buffers:
            together = a is not b and a.first <= b.last and b.first <= a.last
            assert not together or a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
    assert optimized.peak_memory((1, 3, 16, 16)) == plan.peak_bytes >= plan.storage.bytes


def test_unknown_operations_run_in_torch_and_say_so() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(torch.fft.fft(x).abs())

    model = Odd().eval()
    optimized = optimize(model, image())
    assert_same(optimized(image()), model(image()))
    plan = optimized.plan_for(image())
    reasons = [node.kernel.reason for node in plan.graph.nodes if isinstance(node.kernel, Torch)]
    assert any("fft" in reason for reason in reasons)
    assert 0 < optimized.explain(image(), runs=1).torch_share <= 1


def test_explanation_reads_as_table_and_json() -> None:
    explanation = optimize(small(), image()).explain(runs=1)
    assert "separable" in str(explanation)
    assert "arena" in str(explanation)
    assert '"rows"' in explanation.json()
    assert sum(row.share for row in explanation.rows) == pytest.approx(1)


@pytest.mark.parametrize(("outputs", "twice", "kernel"), [(48, False, Separable), (8, False, Conv), (48, True, Conv)])
@torch.no_grad()
def test_a_norm_goes_into_the_1x1_convolution_that_alone_reads_it(outputs: int, twice: bool, kernel: type) -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.conv = nn.Conv2d(3, outputs, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = torch.relu(self.norm(x))
            return self.conv(y), y if twice else x

    torch.manual_seed(0)
    model = Dense()
    model(image(8))  # for the norm's statistics
    model.eval()
    optimized = optimize(model, image())
    assert kernel in [type(node.kernel) for node in optimized.plan_for(image()).graph.nodes]
    for actual, expected in zip(optimized(image()), model(image()), strict=True):
        assert_same(actual, expected)


def test_separable_pairs_only_where_the_middle_is_not_read() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1, groups=3)
            self.second = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.first(x)
            return y, self.second(y)

    model = Both().eval()
    optimized = optimize(model, image())
    plan = optimized.plan_for(image())
    assert not any(isinstance(node.kernel, Separable) for node in plan.graph.nodes)
    with torch.no_grad():
        for actual, expected in zip(optimized(image()), model(image()), strict=True):
            assert_same(actual, expected)


def test_optimized_without_example_plans_at_the_first_call() -> None:
    model = small()
    with torch.no_grad():
        assert_same(Optimized(model)(image()), model(image()))


@torch.no_grad()
def test_saved_networks_run_without_their_model(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "small.safetensors"
    optimized = optimize(model, image())
    optimized(image(2))
    optimized.save(path)
    loaded = Optimized.load(path)
    for batch in (1, 2):
        assert torch.equal(loaded(image(batch)), optimized(image(batch)))
    with pytest.raises(InputError, match=r"plans for inputs of shapes .*16, 16"):
        loaded(image(3))
    assert_same(Optimized.load(path, model)(image(3)), model(image(3)))


def test_what_is_no_saved_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(InputError, match=r"other\.safetensors"):
        Optimized.load(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        Optimized.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="holds no network"):
        Optimized.load(path)


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = x * 2
        b = a.relu_()
        b += 1
        c = a * 3  # reads what was written through b
        d = c[:, 1:]
        d.mul_(2)  # writes through a view
        return torch.cat([a, b, c], 1)


@torch.no_grad()
def test_writes_in_place_reach_all_names() -> None:
    assert_same(optimize(InPlace().eval(), image())(image()), InPlace()(image()))


@torch.no_grad()
def test_a_flattened_image_of_another_form_reads_its_weights_in_another_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 7 * 3, 5)).eval()
    optimized = Optimized(model)
    for size in ((7, 3), (3, 7), (7, 3)):
        x = torch.randn(2, 3, *size)
        assert_same(optimized(x), model(x))
