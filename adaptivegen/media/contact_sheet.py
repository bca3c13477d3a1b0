"""A contact sheet: a draft above its final at the same instants, as one PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

CELL = 160  # pixels
MARGIN = 4
LABEL = 14


def contact_sheet(
    draft: NDArray[np.uint8], final: NDArray[np.uint8], *, duration_s: float, title: str, columns: int = 6
) -> bytes:
    """PNG bytes. Both clips are uint8 (T, H, W, 3) of any size and length and span `duration_s`."""
    width = MARGIN + columns * (CELL + MARGIN)
    height = 2 * LABEL + 2 * (CELL + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 1), title, fill="black")
    for column in range(columns):
        instant = column / max(columns - 1, 1)
        left = MARGIN + column * (CELL + MARGIN)
        pen.text((left, LABEL), f"{instant * duration_s:.2f} s", fill="black")
        for row, clip in enumerate((draft, final)):
            frame = clip[min(len(clip) - 1, round(instant * (len(clip) - 1)))]
            picture = ImageOps.pad(Image.fromarray(frame), (CELL, CELL), Image.Resampling.BICUBIC, color="white")
            sheet.paste(picture, (left, 2 * LABEL + row * (CELL + MARGIN)))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
