"""The slide demonstration: a small U-Net that marks nuclei in H&E. `fastnets.training.demo` trains it."""

from __future__ import annotations

from functools import partial

from fastnets.io.protocol import ClassInfo
from fastnets.models.entry import ModelEntry
from fastnets.models.recipe import MeanStd, Recipe
from fastnets.models.unet import UNet

# White becomes 0, so that the zero padding of the convolutions looks like the empty glass around a slide.
NORMALIZE = MeanStd(mean=(255.0, 255.0, 255.0), std=(64.0, 64.0, 64.0))

ENTRIES = (
    ModelEntry(
        name="nuclei_demo",
        build=partial(UNet, dims=2, in_channels=3, num_classes=2, width=8, depth=3),
        summary="small U-Net that marks nuclei in H&E slides; a demonstration of the pipeline",
        paper="Ronneberger, Fischer, Brox, U-Net, MICCAI 2015",
        year=2015,
        parameters=121_186,
        dims=(2,),
        weights="nuclei_demo.safetensors",
        licence="Apache-2.0 (trained by fastnets.training.demo)",
        recipe=Recipe(
            axes="YX",
            channels=3,
            unit="µm",
            spacing=(0.5, 0.5),
            normalize=NORMALIZE,
            classes=(ClassInfo(0, "background", (255, 255, 255)), ClassInfo(1, "nucleus", (0, 160, 80))),
            description="Nuclei in H&E slides at 0.5 µm/px.",
            caution=(
                "A demonstration of the pipeline, not a diagnostic network: it learned from automatic stain "
                "thresholds on two thirds of one slide and one image, and mistakes keratin and marking ink for nuclei."
            ),
        ),
    ),
)
