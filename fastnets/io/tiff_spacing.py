"""The micrometres a pixel of a TIFF, from whichever tag its maker uses."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

from tifffile import TiffFile

from fastnets.io.spacing import MICROMETRES, from_density, plausible

Found = tuple[dict[str, float] | None, tuple[str, ...]]


def tiff_spacing(file: TiffFile) -> Found:
    """µm a pixel by axis letter ("X", "Y", perhaps "Z"), or None; and the tags that were looked at.

    Aperio says MPP, OME says PhysicalSize, ImageJ gives its own unit to XResolution; then the plain tags.
    Values are returned as they are, NaN for what is no number: the caller decides.
    """
    sources = (
        (file.is_svs, "MPP in ImageDescription", _aperio),
        (file.is_ome, "OME-XML PhysicalSizeX/PhysicalSizeY", _ome),
        (file.is_imagej, "ImageJ unit with XResolution/YResolution", _imagej),
        # Aperio's resolution tags are absent or the scanner's, so they are not a second source.
        (not file.is_svs, "XResolution/YResolution with ResolutionUnit", _resolution),
    )
    tried: list[str] = []
    for applies, name, find in sources:
        if applies:
            tried.append(name)
            if found := find(file):
                return found, tuple(tried)
    return None, tuple(tried)


def _aperio(file: TiffFile) -> dict[str, float] | None:
    match = re.search(r"\|\s*MPP\s*=\s*([^|\s]*)", file.pages.first.description)
    if match is None:
        return None
    return dict.fromkeys("XY", _number(match[1]))


def _ome(file: TiffFile) -> dict[str, float] | None:
    try:
        root = ElementTree.fromstring(file.ome_metadata or "")
    except ElementTree.ParseError:
        return None
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    found: dict[str, float] = {}
    for axis in "XYZ" if pixels is not None else "":
        assert pixels is not None
        value, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if value is not None and unit in MICROMETRES:  # "pixel" and "reference frame" are no lengths
            found[axis] = _number(value) * MICROMETRES[unit]
    return found if {"X", "Y"} <= found.keys() else None


def _imagej(file: TiffFile) -> dict[str, float] | None:
    metadata = file.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    density = _densities(file)
    if unit not in MICROMETRES or density is None:
        return None
    found = {axis: from_density(pixels, unit) for axis, pixels in density.items()}
    if "spacing" in metadata:
        found["Z"] = _number(str(metadata["spacing"])) * MICROMETRES[unit]
    return found


def _resolution(file: TiffFile) -> dict[str, float] | None:
    tag = file.pages.first.tags.get("ResolutionUnit")
    unit = {2: "inch", 3: "centimeter"}.get(int(tag.value) if tag else 2)  # TIFF 6.0: inch unless said
    density = _densities(file)
    if unit is None or density is None:
        return None
    found = {axis: from_density(pixels, unit) for axis, pixels in density.items()}
    return found if plausible(tuple(found.values())) else None


def _densities(file: TiffFile) -> dict[str, float] | None:
    """Pixels a unit along X and Y, from rationals."""
    found: dict[str, float] = {}
    for axis in "XY":
        tag = file.pages.first.tags.get(f"{axis}Resolution")
        if tag is None:
            return None
        numerator, denominator = tag.value
        found[axis] = numerator / denominator if denominator else math.nan
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
