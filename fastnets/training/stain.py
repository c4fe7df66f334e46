"""H&E by colour deconvolution: labels of nuclei without annotation, and variation of the staining.

Paper: Ruifrok, Johnston, "Quantification of histochemical staining by color deconvolution" (2001).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]
from skimage.color import hed_from_rgb, rgb2hed, rgb_from_hed
from skimage.filters import threshold_otsu

# For 0.5 µm/px. They were set by looking at outlines over the slide and the image of `demo`.
_LOCAL_SIGMA = 15.0  # px: a neighbourhood of several nuclei
_LOCAL_CONTRAST = 1.3  # times the mean of the neighbourhood: the cytoplasm of an epithelium is as dark as pale nuclei
_AREA = (30, 800)  # px: debris, and sheets of keratin
_ELONGATION = 7.0  # area over that of the largest inscribed disc: strands of keratin


def nuclei_labels(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an H&E image (H, W, 3) holds nuclei: compact spots of hematoxylin, darker than their surroundings.

    Automatic and approximate: fragments of keratin and ink pass, and pale or crowded nuclei are lost.
    """
    stain = ndimage.gaussian_filter(rgb2hed(rgb)[..., 0], 1)
    local = ndimage.gaussian_filter(stain, _LOCAL_SIGMA)
    otsu = threshold_otsu(stain)  # type: ignore[no-untyped-call]
    green_ink = rgb[..., 1] > rgb[..., 0]
    spots = (stain > otsu) & (stain > _LOCAL_CONTRAST * local) & ~green_ink
    spots = ndimage.binary_fill_holes(ndimage.binary_opening(spots))
    spot, n = ndimage.label(spots)
    area = np.bincount(spot.ravel(), minlength=n + 1)
    radius = ndimage.maximum(ndimage.distance_transform_edt(spots), spot, np.arange(n + 1))
    keep = (area >= _AREA[0]) & (area <= _AREA[1]) & (area <= _ELONGATION * np.pi * radius**2)
    keep[0] = False
    labels: NDArray[np.bool_] = keep[spot]
    return labels


def jitter_stains(rgb: NDArray[np.uint8], rng: np.random.Generator, *, strength: float = 0.3) -> NDArray[np.float32]:
    """The image (H, W, 3) as a laboratory might have stained it: float32 on the 0..255 scale.

    Hematoxylin and eosin are scaled by independent factors of 1 ± `strength`, linearly in optical density.
    """
    factors = np.append(rng.uniform(1 - strength, 1 + strength, 2), 1.0)
    change = (hed_from_rgb * factors) @ rgb_from_hed
    density = np.log((rgb.astype(np.float32) + 1) / 256)
    stained: NDArray[np.float32] = 256 * np.exp(density @ change.astype(np.float32)) - 1
    return stained.clip(0, 255)
