"""What the engine makes of operations that torch writes in several ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from harness import poisoned, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from fastnets.engine import optimize


class Between(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.function, self.after = nn.Conv2d(3, 4, 1), function, nn.Conv2d(channels, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.function(self.before(x)))
        return y


CONV = "conv product"
CASES: dict[str, tuple[Between, list[str]]] = {
    "local response norm": (Between(nn.LocalResponseNorm(3, alpha=0.5, k=2.0)), [CONV, "channel_norm", CONV]),
    "local response norm of even size": (Between(nn.LocalResponseNorm(4, alpha=0.5)), [CONV, "channel_norm", CONV]),
    "one slope": (Between(nn.PReLU()), [f"{CONV} + leaky", CONV]),
    "a slope a channel": (Between(nn.PReLU(4)), [CONV, "combine", CONV]),
    "reflection": (Between(nn.ReflectionPad2d((1, 2, 0, 3))), [CONV, "pad", CONV]),
    "replication": (Between(nn.ReplicationPad2d(2)), [CONV, "pad", CONV]),
    "circular": (Between(lambda x: F.pad(x, (1, 0, 2, 3), mode="circular")), [CONV, "pad", CONV]),
    "no padding": (Between(lambda x: torch.cat([F.pad(x, (0, 0, 0, 0), mode="replicate"), x.relu()], 1), 8),
                   [CONV, "activation + relu", CONV]),
    "adaptive maximum": (Between(nn.AdaptiveMaxPool2d((3, 1))), [CONV, "pool", CONV]),
    "mean": (Between(lambda x: x.mean((2, 3))[..., None, None]), [CONV, "pool", CONV]),
    "a mean of columns": (Between(lambda x: x * x.mean(-1, keepdim=True)), [CONV, "pool", "combine", CONV]),
    "shares of a column": (Between(lambda x: x / (x.relu().sum(2, keepdim=True) + 1)),
                           [CONV, "activation + relu", "pool", "activation + scale", "combine", CONV]),
    "unequal windows": (Between(nn.AdaptiveMaxPool2d(4)), [CONV, "pool", CONV]),
    "unequal windows of a mean": (Between(nn.AdaptiveAvgPool2d((4, 7))), [CONV, "pool", CONV]),
    "pixel shuffle": (Between(nn.PixelShuffle(2), 1), [CONV, "relayout", CONV]),
    "pixel unshuffle": (Between(lambda x: F.pixel_unshuffle(x[..., :4], 2), 16), [CONV, "relayout", CONV]),
    "channel shuffle": (Between(nn.ChannelShuffle(2)), [CONV, "relayout", CONV]),
    "channel shuffle of views": (Between(lambda x: x.view(2, 2, 2, 6, 5).transpose(1, 2).contiguous().view(x.shape)),
                                 [CONV, "relayout", CONV]),
    "halves": (Between(lambda x: torch.cat([half.relu() for half in x.chunk(2, 1)][::-1], 1)),
               [CONV, *["activation + relu"] * 2, CONV]),
    "difference": (Between(lambda x: x.relu() - x), [CONV, "activation + relu", "combine", CONV]),
    "quotient": (Between(lambda x: x / (x.relu() + 1)), [CONV, "activation + relu", "activation", "combine", CONV]),
    "a constant a column": (Between(lambda x: x * torch.arange(1.0, 6)),
                            [CONV, "relayout", "combine", "relayout", CONV]),
    "a constant a pixel": (Between(lambda x: x + torch.arange(30.0).view(6, 5)), [CONV, "combine", CONV]),
    "a constant of the input's shape": (Between(lambda x: x - 2 * x.new_ones(6, 5)), [CONV, "combine", CONV]),
    "shape of another value": (Between(lambda x: x.mean(1, keepdim=True).expand_as(x)),
                               [CONV, "torch mean", "relayout", CONV]),
    "a sum of a stack": (Between(lambda x: torch.stack([x, x.relu()], 1).sum(1)),
                         [CONV, "activation + relu", "activation + residual", CONV]),
    "a mean of a stack of one": (Between(lambda x: torch.stack([x.relu()], -1).mean(-1)), [f"{CONV} + relu", CONV]),
    "split attention": (Between(lambda x: (x.view(2, 2, 2, 6, 5) * x.mean((2, 3)).view(2, 2, 2, 1, 1)).sum(1), 2),
                        [CONV, "pool", "combine", "combine", "activation + residual", CONV]),
    "rolled": (Between(lambda x: x.roll((1, -2), (2, 3))), [CONV, *["activation"] * 4, CONV]),
    "rolled around": (Between(lambda x: x.relu().roll(6, 2)), [f"{CONV} + relu", CONV]),
    "zeros around": (Between(lambda x: F.pad(x.relu(), (1, 0, 2, 1)).tanh()),
                     [f"{CONV} + relu", *["relayout"] * 3, "activation", "activation + tanh", CONV]),
    "a number around": (Between(lambda x: F.pad(x, (0, 2), value=3.0).tanh()),
                        [CONV, "relayout", "activation + tanh", CONV]),
    "zeros and a crop": (Between(lambda x: F.pad(x, (-1, 2)).tanh()), [CONV, "torch pad", "activation + tanh", CONV]),
    "a constant beside it": (Between(lambda x: torch.cat([x, x.new_ones(2, 1, 6, 5), x.relu()], 1), 9),
                             [CONV, "activation + relu", "relayout", CONV]),
    "a mean of rows": (Between(lambda x: x.flatten(2).mT.mean(1)[..., None, None]), [CONV, "pool", CONV]),
    "a mean of rows, kept": (Between(lambda x: x.permute(0, 2, 3, 1).mean((1, 2), keepdim=True).movedim(-1, 1)),
                             [CONV, "pool", CONV]),
    "vectors of length 1": (Between(lambda x: F.normalize(x, dim=1)), [CONV, "channel_norm", CONV]),
    "rows of length 1": (Between(lambda x: F.normalize(x.flatten(2).mT, dim=-1).mT.view(x.shape)),
                         [CONV, "channel_norm", CONV]),
    "lengths of channels": (Between(lambda x: x / (torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True) + 1)),
                            [CONV, "combine", "pool", "activation + scale", "torch sqrt", "activation", "combine",
                             CONV]),
    "lengths, moved": (Between(lambda x: x * torch.linalg.vector_norm(x.movedim(1, 3), dim=(1, 2)).view(2, 4, 1, 1)),
                           [CONV, "combine", "pool", "activation + scale", "torch sqrt", "combine", CONV]),
    "by a matrix": (Between(lambda x: (x.movedim(1, -1) @ x.new_tensor(range(28)).view(4, 7)).movedim(-1, 1), 7),
                    [CONV, "linear product", CONV]),
    "a product added": (Between(lambda x: torch.addcmul(x.new_ones(5), x, x.relu())),
                        [CONV, "activation + relu", *["combine", "relayout"] * 2, CONV]),
    "rows merged": (Between(lambda x: x.movedim(1, -1).reshape(2, 3, 8, 5), 3), [CONV, "relayout", CONV]),
    "rows": (Between(lambda x: x.flatten(2).softmax(-1).view(x.shape)),
             [CONV, "relayout", "channel_norm", "relayout", CONV]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_steps(name: str) -> None:
    model, steps = CASES[name]
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    with poisoned(), torch.inference_mode():
        optimized = optimize(model.eval(), x)
        assert relative_error(optimized(x), model.double()(x.double())) <= 1e-6
    assert [row.kernel for row in optimized.explain(runs=1).rows] == steps


class Indices(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = F.adaptive_max_pool2d(x, 2, return_indices=True)
        return values, indices


def test_further_results_of_an_operation() -> None:
    x = torch.randn(1, 3, 6, 4)
    for actual, expected in zip(optimize(Indices().eval(), x)(x), Indices()(x), strict=True):
        assert torch.equal(actual, expected)
