"""The networks of other packages whose outputs tests/parity holds: what an optimised model must keep."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fastnets.models.registry import create_model


@functools.cache
def _nms_signatures() -> torch.library.Library:
    """torchvision describes its operators when it is imported, and fails where its compiled part does not fit torch.

    None of the networks here calls them.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def from_torchvision(name: str, **options: Any) -> nn.Module:
    _nms_signatures()
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.get_model(name, weights=None, **options)


def _segmentation(name: str) -> nn.Module:
    return from_torchvision(name, weights_backbone=None, aux_loss=name.startswith("fcn"))


def _timm(name: str) -> nn.Module:
    model: nn.Module = pytest.importorskip("timm").create_model(name)
    return model


def _monai(name: str, *args: Any, **options: Any) -> nn.Module:
    model: nn.Module = getattr(pytest.importorskip("monai.networks.nets"), name)(*args, **options)
    return model


def _monai_unet(dims: int, channels: tuple[int, ...]) -> nn.Module:
    options = {"strides": (2,) * (len(channels) - 1), "num_res_units": 2}
    return _monai("UNet", dims, 3 if dims == 2 else 1, 2, channels, **options)


def _dynunet() -> nn.Module:
    return _monai("DynUNet", 3, 1, 3, [3] * 4, (1, 2, 2, 2), (2, 2, 2))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "alexnet": lambda: create_model("alexnet"),
    "vgg11": lambda: create_model("vgg11"),
    "vgg16": lambda: create_model("vgg16"),
    "vgg19_bn": lambda: create_model("vgg19_bn"),
    "googlenet": lambda: create_model("googlenet", aux=True),
    "resnet18": lambda: create_model("resnet18"),
    "resnet50": lambda: create_model("resnet50"),
    "resnet101": lambda: create_model("resnet101"),
    "densenet121": lambda: create_model("densenet121"),
    "densenet161": lambda: create_model("densenet161"),
    "mobilenet_v2": lambda: create_model("mobilenet_v2"),
    "mobilenetv1_100": lambda: create_model("mobilenet_v1"),
    "legacy_xception": lambda: create_model("xception"),
    "inception_resnet_v2": lambda: create_model("inception_resnet_v2"),
    "unet_milesial": lambda: create_model("unet"),
    "unet_mateuszbuda": lambda: nn.Sequential(create_model("unet", width=32, num_classes=1), nn.Sigmoid()),
    "torchvision_googlenet": lambda: from_torchvision("googlenet", init_weights=False),
    "torchvision_densenet121": lambda: from_torchvision("densenet121"),
    "torchvision_mobilenet_v2": lambda: from_torchvision("mobilenet_v2"),
    "torchvision_resnet18": lambda: from_torchvision("resnet18"),
    "fcn_resnet50": lambda: _segmentation("fcn_resnet50"),
    "deeplabv3_resnet50": lambda: _segmentation("deeplabv3_resnet50"),
    "r3d_18": lambda: from_torchvision("r3d_18"),
    "timm_legacy_xception": lambda: _timm("legacy_xception"),
    "timm_inception_resnet_v2": lambda: _timm("inception_resnet_v2"),
    "timm_mobilenetv1_100": lambda: _timm("mobilenetv1_100"),
    "monai_unet_2d": lambda: _monai_unet(2, (16, 32, 64, 128)),
    "monai_unet_3d": lambda: _monai_unet(3, (16, 32, 64, 128, 256)),
    "monai_basic_unet_3d": lambda: _monai("BasicUNet", 3, 1, 2),
    "monai_dynunet_3d": _dynunet,
    "monai_resnet18_3d": lambda: _monai("resnet18", spatial_dims=3, n_input_channels=1, num_classes=2),
    "monai_densenet121_3d": lambda: _monai("DenseNet121", 3, 1, 2),
}
"""Fixture, with the package before it where fastnets builds that network too."""
