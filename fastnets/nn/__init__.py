"""Drop-in torch.nn modules over fastnets.ops: the parameters, names and results of torch's, on the kernels.

They are for networks that are built and trained; fastnets.optimize() makes a finished network faster than these
can, because it also fuses across modules.
"""

from fastnets.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    DilatedConv1d,
    DilatedConv2d,
    DilatedConv3d,
    SeparableConv1d,
    SeparableConv2d,
    SeparableConv3d,
)

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "DilatedConv1d",
    "DilatedConv2d",
    "DilatedConv3d",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
]
