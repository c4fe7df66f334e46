"""A PNG to judge a label map by: the plain image, and the labels over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fastnets.io.atomic import atomic_path
from fastnets.io.labels import check_axes, class_of
from fastnets.io.overlay_views import View, slide_view, volume_views
from fastnets.io.protocol import ClassInfo, LabelMap, Reader

Picture = NDArray[np.uint8]

LONGEST = 2048  # pixels, of the whole picture
_GAP = 8
_TEXT = 16
_OPACITY = 0.35
_PAPER = (24, 24, 24)
_INK = (235, 235, 235)


def write_overlay(label_map: LabelMap, path: Path | str, reader: Reader | None = None) -> None:
    """Writes a PNG of at most 2048 pixels a side: image on the left or top, labels over it beside or below.

    A plane (YX) is shown whole; a volume (XYZ, ZYX) by three orthogonal slices through the labelled region.
    Label 0 is left clear. Without a `reader` the labels are drawn alone. Memory: a band of the image.
    """
    check_axes(label_map, ("YX", "XYZ", "ZYX"), "png", "give the spatial axes only")
    inner = LONGEST - 3 * _GAP
    if len(label_map.axes) == 3:
        views = volume_views(label_map, reader, (inner - _GAP) // 3)
        grid = [[(_plain(v), v) for v in views]] if reader is not None else []
        grid.append([(_overlaid(label_map, v), v) for v in views])
    else:
        view = slide_view(label_map, reader, inner // 2 if reader is not None else inner)
        grid = [[(_plain(view), view)] if reader is not None else []]
        grid[0].append((_overlaid(label_map, view), view))
    seen = sorted({int(v) for row in grid for _, view in row for v in np.unique(view.labels)} - {0})
    picture = _framed(grid, [class_of(label_map, v) for v in seen])
    with atomic_path(path) as partial:
        picture.save(partial, format="PNG")


def _plain(view: View) -> Picture:
    return np.zeros((*view.labels.shape, 3), np.uint8) if view.image is None else view.image


def _overlaid(label_map: LabelMap, view: View) -> Picture:
    """The image tinted where there is a label, and the outline of every label at full strength."""
    values, inverse = np.unique(view.labels, return_inverse=True)
    palette = np.array([class_of(label_map, int(v)).color for v in values], np.float32)
    colors = palette[inverse.reshape(view.labels.shape)]
    labelled = view.labels > 0
    opacity = np.where(_outline(view.labels), 1.0, _OPACITY if view.image is not None else 0.7) * labelled
    out: Picture = np.rint(_plain(view) * (1 - opacity[..., None]) + colors * opacity[..., None]).astype(np.uint8)
    return out


def _outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels with another label above, below, left or right."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _framed(grid: list[list[tuple[Picture, View]]], classes: list[ClassInfo]) -> Image.Image:
    """The pictures in rows, each with its title and edge letters, and a legend below."""
    widths = [max(row[i][0].shape[1] for row in grid) for i in range(len(grid[0]))]
    heights = [max(picture.shape[0] for picture, _ in row) for row in grid]
    width = sum(widths) + _GAP * (len(widths) + 1)
    legend = _legend_rows(classes, width)
    height = sum(heights) + _GAP * (len(heights) + 1) + len(legend) * (_TEXT + _GAP)
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_TEXT)
    y = _GAP
    for row, tall in zip(grid, heights, strict=True):
        x = _GAP
        for (picture, view), wide in zip(row, widths, strict=True):
            left, top = x + (wide - picture.shape[1]) // 2, y + (tall - picture.shape[0]) // 2
            canvas.paste(Image.fromarray(picture), (left, top))
            draw.text((x + 4, y + 2), view.title, _INK, font)
            draw.text((x + 4, y + tall // 2), view.left, _INK, font)
            draw.text((x + wide // 2, y + 2), view.top, _INK, font)
            x += wide + _GAP
        y += tall + _GAP
    for entries in legend:
        for x, info in entries:
            draw.rectangle((x, y, x + _TEXT, y + _TEXT), fill=info.color)
            draw.text((x + _TEXT + 6, y - 2), info.name, _INK, font)
        y += _TEXT + _GAP
    return canvas


def _legend_rows(classes: list[ClassInfo], width: int) -> list[list[tuple[int, ClassInfo]]]:
    """Where each class goes: at most four rows, because instances may be thousands and need no legend."""
    font = ImageFont.load_default(_TEXT)
    rows: list[list[tuple[int, ClassInfo]]] = []
    x = width
    for info in classes:
        need = _TEXT + 6 + round(font.getlength(info.name)) + 3 * _GAP
        if x + need > width:
            rows.append([])
            x = _GAP
        rows[-1].append((x, info))
        x += need
    return rows[:4]
