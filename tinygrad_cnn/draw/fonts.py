"""How wide text is: measured in a font that is always there, so that a box fits its text on every machine."""

from __future__ import annotations

import functools
import importlib.util
import math
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

UNITS = 2048
"""Units per em of DejaVu Sans."""

HELVETICA = {"_": 0.556, "@": 1.015}
"""The width in Helvetica, in ems, of the characters that are wider there."""

PIXELS = 96 / 72
"""Per point, on screens."""


def font_path(bold: bool = False) -> Path:
    """The file of DejaVu Sans, which comes with matplotlib."""
    package = importlib.util.find_spec("matplotlib")                   # found, not imported: that takes half a second
    assert package is not None and package.origin is not None
    return Path(package.origin).with_name("mpl-data") / f"fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf"


@functools.cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(font_path(bold)), UNITS, layout_engine=ImageFont.Layout.BASIC)


def is_wide(character: str) -> bool:
    """Whether a character is CJK or an emoji."""
    return unicodedata.east_asian_width(character) in "WF"


@functools.cache
def _advance(character: str, size: float, bold: bool) -> float:
    """A character's width in points. CJK, which the font lacks, fills a square, an emoji more than that."""
    if is_wide(character):
        return size * (1.3 if unicodedata.category(character) == "So" else 1.0)
    em, pixels = max(_font(bold).getlength(character) / UNITS, HELVETICA.get(character, 0.0)), size * PIXELS
    return max(em * pixels, math.floor(em * math.ceil(pixels) + 0.5)) / PIXELS


def text_width(text: str, size: float, bold: bool = False) -> float:
    """How wide a line is in DejaVu Sans, in points.

    Whoever opens a picture sees its text in what they have for Helvetica: Arial, Liberation Sans or, most often,
    DejaVu Sans, which is the widest of them. A box that fits DejaVu Sans fits all, also where a browser rounds the size
    and the width of each letter to whole pixels.
    """
    return sum(_advance(character, size, bold) for character in text)
