"""Attention in the graphs of networks: what becomes one step, and what must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from harness import poisoned, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from fastnets.engine import optimize

HEADS, DEPTH = 3, 8


class Attend(nn.Module):
    """x (batch, tokens, HEADS * DEPTH) to a function of queries, keys and values (batch, HEADS, tokens, DEPTH)."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.after = nn.Linear(HEADS * DEPTH, 3 * HEADS * DEPTH), nn.Linear(HEADS * DEPTH, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, HEADS, DEPTH).permute(2, 0, 3, 1, 4).unbind()
        y = self.function(q, k, v)
        result: Tensor = self.after(y.transpose(1, 2).reshape(batch, tokens, channels))
        return result


TOKENS, BATCH = 21, 4
BIAS = torch.randn(1, HEADS, TOKENS, TOKENS, generator=torch.Generator().manual_seed(1))
MASK = torch.where(BIAS[:, :1].repeat(2, 1, 1, 1) > 0.5, -100.0, 0.0)  # of two windows
CAUSAL = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()


def explicit(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    scores = q * DEPTH**-0.5 @ k.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def windows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Swin's: a bias of all, and a mask of each window."""
    scores = q @ k.transpose(-2, -1) * DEPTH**-0.5 + BIAS
    scores = scores.view(BATCH // 2, 2, HEADS, TOKENS, TOKENS) + MASK.unsqueeze(0)
    return F.dropout(scores.view(-1, HEADS, TOKENS, TOKENS).softmax(-1), 0.1, False) @ v


def einsums(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / DEPTH**0.5
    return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)


def of_three_axes(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    flat = [t.reshape(BATCH * HEADS, TOKENS, DEPTH) for t in (q, k, v)]
    return (torch.bmm(flat[0], flat[1].transpose(1, 2)).softmax(-1) @ flat[2]).view(q.shape)


ONE_STEP: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "torch's": F.scaled_dot_product_attention,
    "torch's with a scale": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.1),
    "torch's with a mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, CAUSAL),
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "with numbers as its mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, BIAS),
    "written out": explicit,
    "with a bias": lambda q, k, v: explicit(q, k, v, BIAS),
    "with a bias of keys": lambda q, k, v: explicit(q, k, v, BIAS[:, :1, :1]),
    "of windows": windows,
    "by einsum": einsums,
    "of three axes": of_three_axes,
    "a scale a head": lambda q, k, v: (q @ k.mT * torch.rand(HEADS, 1, 1)).softmax(-1) @ v,
    "one key": lambda q, k, v: explicit(q, k[:, :, :1], v[:, :, :1]),
    "fewer keys": lambda q, k, v: explicit(q, k[:, :, 2:9], v[:, :, 2:9]),
}
OTHERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "a bias that is computed": lambda q, k, v: explicit(q, k, v, (q @ q.mT).relu()),
    "scaled after the bias": lambda q, k, v: ((q @ k.mT + BIAS) * 2).softmax(-1) @ v,
    "three terms": lambda q, k, v: (q @ k.mT + BIAS + MASK[:1] + BIAS).softmax(-1) @ v,
    "over the queries": lambda q, k, v: (q @ k.mT).softmax(-2) @ v,
    "weights read twice": lambda q, k, v: (lambda w: w @ v + w.sum(-1, keepdim=True))((q @ k.mT).softmax(-1)),
    "a factor a query": lambda q, k, v: (q @ k.mT * torch.rand(TOKENS, 1)).softmax(-1) @ v,
    "no softmax": lambda q, k, v: q @ k.mT @ v,
    "no softmax, by einsum": lambda q, k, v: q @ torch.einsum("bhmd,bhmn->bhdn", k, v),
    "a matrix of each head": lambda q, k, v: (torch.rand(HEADS, DEPTH, DEPTH) @ q.mT @ k @ v.mT).mT,
    "times a constant": lambda q, k, v: (q @ torch.rand(HEADS, DEPTH, TOKENS) + k @ torch.rand(DEPTH, TOKENS)) @ v,
    "a vector": lambda q, k, v: q @ (k[:, :, :1].mT * 0.1) + v,
    "channels attend": lambda q, k, v: ((q.mT @ k).softmax(-1) @ v.mT).mT,
    "heads in the middle": lambda q, k, v: torch.einsum("bhij,bhjd->bihd", (q @ k.mT).softmax(-1), v).transpose(1, 2),
    "one batch for all": lambda q, k, v: (q @ k[:1].mT).softmax(-1) @ v,
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*ONE_STEP, *OTHERS])
def test_equals_the_network(name: str, dtype: str) -> None:
    torch.manual_seed(0)
    model = Attend({**ONE_STEP, **OTHERS}[name]).eval()
    x = torch.randn(BATCH, TOKENS, HEADS * DEPTH)
    with poisoned(), torch.no_grad():
        torch.manual_seed(0)
        expected = model(x)
        torch.manual_seed(0)
        fast = optimize(model, x, dtype="bf16" if dtype == "bf16" else "fp32")
        torch.manual_seed(0)
        actual = fast(x)
    assert relative_error(actual, expected) < (2e-2 if dtype == "bf16" else 2e-6)
    kernels = [row.kernel for row in fast.explain(runs=1).rows]
    if name in ONE_STEP:
        assert kernels.count("attention") == 1, kernels
        assert not any(k.startswith("torch") for k in kernels), kernels


@pytest.mark.parametrize("name", OTHERS)
def test_torch_multiplies_nothing(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(BATCH, TOKENS, HEADS * DEPTH)
    kernels = [row.kernel for row in optimize(Attend(OTHERS[name]).eval(), x).explain(runs=1).rows]
    assert not any(kernel.startswith("torch") and "mul" in kernel for kernel in kernels), kernels


def test_no_copies_around_it() -> None:
    x = torch.randn(BATCH, TOKENS, HEADS * DEPTH)
    for function in (F.scaled_dot_product_attention, explicit, windows, einsums):
        kernels = [row.kernel for row in optimize(Attend(function).eval(), x).explain(runs=1).rows]
        assert [k.partition(" ")[0] for k in kernels] == ["linear", "attention", "linear"], kernels


def test_a_layer_of_torch() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(24, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return y

    torch.manual_seed(0)
    model, x = Layer().eval(), torch.randn(2, 50, 24)
    fast = optimize(model, x)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-6)
    assert "attention" in [row.kernel for row in fast.explain(runs=1).rows]
