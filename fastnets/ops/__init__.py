"""The kernels as functions of torch tensors, and the layers whose weights are packed once and run often.

Functions have the names of their modules, so these imports cannot wait for their first use: importing a module
would put it in the place of its function.
"""

from fastnets.ops.activation import activation
from fastnets.ops.attention import attention
from fastnets.ops.channel_norm import layer_norm, local_response_norm, normalize, softmax
from fastnets.ops.combine import add, multiply, prelu
from fastnets.ops.conv import PackedConv, conv
from fastnets.ops.conv_transpose import PackedConvTranspose, conv_transpose
from fastnets.ops.depthwise import depthwise
from fastnets.ops.grid_sample import grid_sample
from fastnets.ops.inverted_bottleneck import PackedInvertedBottleneck, inverted_bottleneck
from fastnets.ops.linear import PackedLinear, linear
from fastnets.ops.matmul import matmul
from fastnets.ops.nms import nms
from fastnets.ops.norm import batch_norm, group_norm, instance_norm, moments
from fastnets.ops.pad import pad
from fastnets.ops.pool import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    max_pool,
)
from fastnets.ops.resize import resize
from fastnets.ops.roi_align import roi_align
from fastnets.ops.separable import PackedSeparable, separable
from fastnets.ops.upfirdn2d import upfirdn2d
from fastnets.ops.window_accumulate import window_accumulate
from fastnets.ops.window_gather import window_gather

__all__ = [
    "PackedConv",
    "PackedConvTranspose",
    "PackedInvertedBottleneck",
    "PackedLinear",
    "PackedSeparable",
    "activation",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add",
    "attention",
    "avg_pool",
    "batch_norm",
    "conv",
    "conv_transpose",
    "depthwise",
    "global_avg_pool",
    "global_max_pool",
    "grid_sample",
    "group_norm",
    "instance_norm",
    "inverted_bottleneck",
    "layer_norm",
    "linear",
    "local_response_norm",
    "matmul",
    "max_pool",
    "moments",
    "multiply",
    "nms",
    "normalize",
    "pad",
    "prelu",
    "resize",
    "roi_align",
    "separable",
    "softmax",
    "upfirdn2d",
    "window_accumulate",
    "window_gather",
]
