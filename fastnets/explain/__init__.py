"""Where a classifier looked: class activation maps of any torch model, in 2D and 3D, and pictures of them."""

from fastnets.explain.maps import cam, grad_cam, grad_cam_pp
from fastnets.explain.picture import overlay
from fastnets.explain.whole import whole_cam

__all__ = ["cam", "grad_cam", "grad_cam_pp", "overlay", "whole_cam"]
