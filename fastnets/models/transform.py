"""What a classification network does to a picture before it looks at it, as data, and the function that does so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastnets.errors import InputError
from fastnets.models.recipe import MeanStd


@dataclass(frozen=True, kw_only=True)
class InputTransform:
    """Resize, crop, normalise, in this order.

    size: side of the square that the network sees, cut from the centre; what a smaller image lacks is black.
    resize: the shorter side becomes so long before the crop; None keeps the resolution.
    normalize: in the order red, green, blue, on the 0..255 scale; a single value for grey images.
    order: in which the network takes the channels; Caffe's networks take blue first.
    interpolation: of the resize, with Pillow's anti-aliasing.
    """

    size: int
    normalize: MeanStd
    resize: int | None = None
    order: Literal["rgb", "bgr"] = "rgb"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


# Of torchvision, and of most weights trained on ImageNet: mean and deviation of its training images.
IMAGENET_MEAN_STD = MeanStd(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
# To [-1, 1]: the Inception family.
CENTRED = MeanStd(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
# Of Oxford's and the other Caffe networks: the mean only.
CAFFE_MEAN = MeanStd(mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0))

IMAGENET = InputTransform(size=224, resize=256, normalize=IMAGENET_MEAN_STD)
INCEPTION = InputTransform(size=299, resize=333, normalize=CENTRED, interpolation="bicubic")


def prepare(image: NDArray[np.uint8] | Image.Image, transform: InputTransform) -> Tensor:
    """The input (1, C, size, size) of a network: float32, from 8-bit RGB (H, W, 3) or grey (H, W).

    Grey images become RGB where the network has three channels. Raises InputError for other arrays.
    """
    picture = crop(image, transform)
    grey = len(transform.normalize.mean) == 1
    values = np.asarray(picture.convert("L" if grey else "RGB"), np.float32).reshape(*picture.size[::-1], -1)
    mean, std = (np.asarray(v, np.float32) for v in (transform.normalize.mean, transform.normalize.std))
    values = (values - mean) / std
    if transform.order == "bgr":
        values = values[..., ::-1]
    return torch.from_numpy(values.transpose(2, 0, 1).copy())[None]


def crop(image: NDArray[np.uint8] | Image.Image, transform: InputTransform) -> Image.Image:
    """The resized and cropped picture itself, what an explanation is drawn over."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise InputError(
                f"prepare: the image is {image.dtype} of shape {image.shape}: pass uint8 (H, W) or (H, W, 3)"
            )
        image = Image.fromarray(image)
    if transform.resize is not None:
        short = min(image.size)
        width, height = (max(1, int(transform.resize * side / short)) for side in image.size)
        image = image.resize((width, height), Image.Resampling[transform.interpolation.upper()])
    left, top = (round((side - transform.size) / 2) for side in image.size)
    return image.crop((left, top, left + transform.size, top + transform.size))
