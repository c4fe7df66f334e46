"""PackedConv: the weights of a convolution, packed once and run on any number of inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fastnets import _C
from fastnets.errors import InputError
from fastnets.ops.conv_arguments import ConvCall, Padding, check, three, window_of
from fastnets.ops.conv_choice import MIXING, choose
from fastnets.ops.conv_config import ConvConfig, Packing
from fastnets.ops.conv_refusals import REFUSALS
from fastnets.ops.conv_tuning import tune
from fastnets.ops.epilogue import activation_of
from fastnets.ops.layout import (
    KERNEL_DTYPES,
    array5,
    channels_are_dense,
    channels_last,
    empty_channels_last,
    floats_of,
    threads,
)


class PackedConv:
    """A convolution whose weights are packed for the kernels that its inputs call for.

    The first input of a new size chooses a kernel (or `config` does) and packs the weights for it, if no earlier
    size did; later ones find them packed. `prepare` does that ahead of time. Changes to `weight` and `bias` after
    the construction are not seen, and gradients are not recorded: conv() is the form for training.

    Args:
        weight: (Cout, Cin / groups, *kernel) float32 or bfloat16 on the CPU, 1 to 3 spatial axes.
        bias: (Cout,); kept in float32, as all sums are.
        stride, dilation: one number, or one a spatial axis.
        padding: zeros on both sides of each axis: one number, one an axis, or pairs (before, after).
        activation, parameters: see fastnets.ops.epilogue.
        scale: (Cout,), what the sums are multiplied by before the bias.
        config: how every input runs, instead of the choice by its size.
        direct: choose among kernels that sum the products of each pixel apart (conv_choice.MIXING names the others).
        packs: where packed weights are kept, to share them with other convolutions by the same weight and groups.

    Raises:
        InputError: the arguments do not fit together.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        activation: str = "none",
        parameters: Sequence[float] = (),
        scale: Tensor | None = None,
        config: ConvConfig | None = None,
        direct: bool = False,
        packs: dict[Packing, _C.PackedConv] | None = None,
    ) -> None:
        if weight.dtype not in KERNEL_DTYPES or weight.device.type != "cpu":
            raise InputError(
                f"conv: weight is {weight.dtype} on {weight.device}: pass torch.float32 or torch.bfloat16 on cpu"
            )
        self.weight = weight.detach().contiguous()
        self.bias = None if bias is None else bias.detach().float().contiguous()
        self.scale = None if scale is None else scale.detach().float().contiguous()
        self.window = window_of(weight.dim() - 2, stride, padding, dilation)
        self.groups = groups
        self.activation = activation_of("conv", activation, parameters)
        self.config = config
        self.direct = direct
        self._chosen: dict[tuple[tuple[int, ...], int], ConvConfig] = {}
        self._packed: dict[Packing, _C.PackedConv] = {} if packs is None else packs

    @property
    def bytes(self) -> int:
        """Memory of the packed weights."""
        return sum(packed.bytes for packed in self._packed.values())

    def __call__(
        self,
        x: Tensor,
        *,
        residual: Tensor | None = None,
        out: Tensor | None = None,
        moments: Tensor | None = None,
        maxima: Tensor | None = None,
    ) -> Tensor:
        """activation(conv(x) * scale + bias + residual), channels-last.

        Args:
            x: (N, Cin, *spatial) of the weight's dtype; unless the channels of each pixel lie together, a copy is made
                where there are more than four.
            residual: the shape of the result.
            out: where to write: the shape of the result, the channels of each pixel together. It may be a slice
                of the channels of a wider tensor, or a crop of a larger one.
            moments: (N, Cout, 2) float64 where mean and variance of each channel of the result go, for a norm of it:
                Winograd makes them along the way.
            maxima: (N, Cout, *half), where max_pool(result, 2) goes, if `makes_maxima` says that it can be made along
                the way. Without `out`, nothing else is written, and this is what returns.

        Raises:
            InputError: a shape, dtype or layout does not fit.
        """
        call = self._call(x, residual, out)
        check(call)
        config = self._choose(call)
        reason = _tensor_refusal(call) if self.config is None else refusal(call, config.algorithm)
        if reason is not None:
            raise InputError(f"conv: {config.algorithm} cannot run: {reason}")
        return run(call, self._pack(call, config), self.scale, moments, maxima)

    def makes_maxima(self, shape: Sequence[int]) -> bool:
        """Whether inputs of `shape` run by a kernel that makes the maxima of windows of 2 results along the way."""
        axes, config = self.weight.dim() - 2, self.prepare(shape)
        even = all(outputs % 2 == 0 for outputs in config.tile[3 - axes :])
        adjacent = set(self.window.dilation) == {1}  # a tile's results are; the windows of others are of several tiles
        return config.algorithm == "winograd" and even and adjacent and self.activation.clamps

    def prepare(self, shape: Sequence[int]) -> ConvConfig:
        """Pack the weights for inputs of `shape`; how they will run."""
        call = self._call(self.weight.new_empty(tuple(shape), device="meta"))
        config = self._choose(call)
        self._pack(call, config)
        return config

    def tune(self, shape: Sequence[int], *, clock: Callable[[], float] = time.perf_counter) -> ConvConfig:
        """Time the kernels on inputs of `shape`; how these run from now on, also in later processes of this user.

        The choice goes into a file of the user's cache folder (fastnets.ops.tuned), for this machine, instruction
        set, number of threads and version. It takes from a second to some ten, by the size of the layer.

        Args:
            clock: seconds; time.process_time on a busy machine, with one thread.
        """
        x = channels_last(self.weight.new_empty(tuple(shape)).normal_())
        call = self._call(x)
        check(call)
        call = replace(call, out=empty_channels_last(x, call.out_shape))
        packs: dict[Packing, _C.PackedConv] = {}

        def prepare(config: ConvConfig) -> Callable[[], object]:
            if config.packing not in packs:
                packs[config.packing] = pack(call, config)
            return lambda: run(call, (packs[config.packing], config))

        config = tune(call.shape, threads(), prepare, clock)
        if not (self.direct and config.algorithm in MIXING):
            self._chosen[tuple(x.shape), threads()] = config
        return self._choose(call)

    def _call(self, x: Tensor, residual: Tensor | None = None, out: Tensor | None = None) -> ConvCall:
        return ConvCall(
            x=x,
            weight=self.weight,
            bias=self.bias,
            residual=residual,
            window=self.window,
            groups=self.groups,
            activation=self.activation,
            out=out,
        )

    def _choose(self, call: ConvCall) -> ConvConfig:
        if self.config is not None:
            return self.config
        key = tuple(call.x.shape), threads()
        if key not in self._chosen:
            self._chosen[key] = choose(call.shape, threads(), direct=self.direct)
        return self._chosen[key]

    def _pack(self, call: ConvCall, config: ConvConfig) -> tuple[_C.PackedConv, ConvConfig]:
        if config.packing not in self._packed:
            self._packed[config.packing] = pack(call, config)
        return self._packed[config.packing], config


def refusal(call: ConvCall, algorithm: str) -> str | None:
    """Why `algorithm` cannot run `call`, or None."""
    reason = _tensor_refusal(call)
    if reason is not None:
        return reason
    if call.config is not None and call.config.algorithm != algorithm:
        return f"config asks for {call.config.algorithm}"
    return REFUSALS[algorithm](call.shape)


def _tensor_refusal(call: ConvCall) -> str | None:
    x = call.x
    if x.device.type != "cpu" or x.dtype not in KERNEL_DTYPES:
        return f"x is {x.dtype} on {x.device}; it needs torch.float32 or torch.bfloat16 on cpu"
    if call.out is not None and not channels_are_dense(call.out):
        return f"out has strides {call.out.stride()}; it needs the channels of each pixel together"
    return None


def pack(call: ConvCall, config: ConvConfig) -> _C.PackedConv:
    """The weights of `call`, packed for `config`."""
    weight = call.weight.detach().contiguous()
    return _C.PackedConv(
        weight=array5(weight),
        groups=call.groups,
        algorithm=config.algorithm,
        tile=config.tile,
        taps=config.taps,
        nthreads=threads(),
    )


def run(
    call: ConvCall,
    packed: tuple[_C.PackedConv, ConvConfig],
    scale: Tensor | None = None,
    moments: Tensor | None = None,
    maxima: Tensor | None = None,
) -> Tensor:
    """The convolution of `call` by weights that `pack` made of its own; moments and maxima as PackedConv has them."""
    weights, config = packed
    # The kernel makes them along the way, of float32 results, which are not rounded after that.
    along = config.algorithm == "winograd" and call.activation.clamps and call.x.dtype == torch.float32
    window = call.window
    out = empty_channels_last(call.x, call.out_shape) if call.out is None and maxima is None else call.out
    residual = None if call.residual is None else array5(channels_last(call.residual))
    weights.run(
        x=array5(call.x if config.algorithm == "planar" else channels_last(call.x)),
        out=None if out is None else array5(out),
        maxima=None if maxima is None else array5(maxima),
        size=three(call.out_shape[2:]),
        stride=three(window.stride),
        pad=three([before for before, _ in window.padding], missing=0),
        dilation=three(window.dilation),
        scale=floats_of(scale),
        shift=floats_of(call.bias),
        residual=residual,
        activation=call.activation.number,
        alpha=call.activation.alpha,
        beta=call.activation.beta,
        moments=moments.numpy() if moments is not None and along else None,
        block=config.block,
        share=config.share,
        stream=config.stream,
        nthreads=threads(),
    )
    if out is None:
        assert maxima is not None
        return maxima
    if moments is not None and not along:
        _C.moments(x=array5(out), out=moments.numpy(), nthreads=threads())
    return out
