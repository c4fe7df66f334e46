"""Class activation maps: which parts of an image or volume speak for a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from fastnets.errors import InputError
from fastnets.explain.layers import captured, last_spatial_layer, linear_head


def cam(
    model: nn.Module,
    x: Tensor,
    *,
    target: int | Tensor | None = None,
    layer: str | None = None,
    head: str | None = None,
    resize: bool = True,
) -> Tensor:
    """What every position adds to the logit of a class, for networks that end in global pooling and a linear layer.

    Args:
        model: in evaluation mode; takes `x` and returns logits (N, classes).
        x: (N, C, H, W) or (N, C, D, H, W).
        target: the class, one for all or one for each image; None takes each image's best.
        layer: name of the layer whose output is pooled; None takes the last that has spatial axes.
        head: name of the linear layer; None takes the last.
        resize: to the size of `x`, linearly; otherwise the map has the size of the layer's output.

    Returns:
        (N, [D,] H, W), with negative values where a position speaks against the class.

    Raises:
        InputError: a layer does not exist, or the linear layer does not read the channels of the maps.

    Paper: Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016).
    """
    layer = layer or last_spatial_layer(model, x)
    linear = linear_head(model, head)
    with torch.no_grad(), captured(model, layer) as outputs:
        logits = model(x)
    maps = outputs[-1]
    if maps.shape[1] != linear.in_features:
        raise InputError(
            f"cam: {layer!r} gives {maps.shape[1]} channels and the linear layer reads {linear.in_features}: "
            "cam is for networks that end in global pooling and one linear layer; use grad_cam for others"
        )
    weights = linear.weight.detach()[_targets(logits, target)]
    return _resized(torch.einsum("nc...,nc->n...", maps, weights), x, resize)


def grad_cam(
    model: nn.Module, x: Tensor, *, target: int | Tensor | None = None, layer: str | None = None, resize: bool = True
) -> Tensor:
    """Maps weighted by the mean gradient of the class's logit, positive parts only; for any classifier.

    Arguments and result as for `cam`.

    Paper: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks …" (ICCV 2017).
    """
    maps, gradient = _gradients(model, x, target, layer)
    weights = gradient.flatten(2).mean(2)
    return _resized(relu(torch.einsum("nc...,nc->n...", maps, weights)), x, resize)


def grad_cam_pp(
    model: nn.Module, x: Tensor, *, target: int | Tensor | None = None, layer: str | None = None, resize: bool = True
) -> Tensor:
    """Grad-CAM++: positive gradients weighted so that several objects of a class all show.

    Arguments and result as for `cam`. The weights are those of the paper's exponential of the logit, up to a
    factor that is the same everywhere.

    Paper: Chattopadhyay et al., "Grad-CAM++" (WACV 2018), equation 19.
    """
    maps, gradient = _gradients(model, x, target, layer)
    square = gradient**2
    total = maps.flatten(2).sum(2).view(*maps.shape[:2], *[1] * (maps.ndim - 2))
    below = 2 * square + total * square * gradient
    alpha = torch.where(below != 0, square / torch.where(below != 0, below, 1.0), 0.0)
    weights = (alpha * relu(gradient)).flatten(2).sum(2)
    return _resized(relu(torch.einsum("nc...,nc->n...", maps, weights)), x, resize)


def _gradients(model: nn.Module, x: Tensor, target: int | Tensor | None, layer: str | None) -> tuple[Tensor, Tensor]:
    """The maps of a layer, and the gradient of the class's logit with respect to them."""
    layer = layer or last_spatial_layer(model, x)
    with torch.enable_grad(), captured(model, layer) as outputs:
        logits = model(x.detach().requires_grad_())
        maps = outputs[-1]
        if maps.ndim != x.ndim:
            raise InputError(f"explain: {layer!r} gives {tuple(maps.shape)}, no maps (N, C, …): name an earlier layer")
        score = logits.gather(1, _targets(logits, target)[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, maps)
    return maps.detach(), gradient


def _targets(logits: Tensor, target: int | Tensor | None) -> Tensor:
    """One class for each image."""
    if logits.ndim != 2:
        raise InputError(f"explain: the model returns {tuple(logits.shape)}: it must return logits (N, classes)")
    if target is None:
        return logits.argmax(1)
    targets = torch.as_tensor(target, device=logits.device).expand(len(logits))
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise InputError(f"explain: target={target} is not a class: pass 0 to {logits.shape[1] - 1}")
    return targets


def _resized(heat: Tensor, x: Tensor, resize: bool) -> Tensor:
    if not resize:
        return heat
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return interpolate(heat[:, None], x.shape[2:], mode=mode, align_corners=False)[:, 0]
