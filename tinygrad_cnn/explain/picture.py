"""From arrays to pictures: how numbers become grey levels and colours, grids of small images, PNG files."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..tensor import Tensor

SEPARATOR = 255
"""Grey level of the lines between the tiles of a grid: white, as the page around it."""
TILE = 64
"""Pixels that the shorter side of an enlarged tile gets at least, unless `enlarge` says otherwise: small but readable."""
HEAT = (255, 60, 0)
"""The colour an overlay marks with, red to orange: no grey level is close to it."""


class Picture:
    """Pixels that show themselves in a notebook and go into a PNG file together with how they were made.

    Args:
        pixels: (H, W, 3) uint8, red green blue.
        info: what is worth knowing about the picture; written into the PNG's text chunks, values as JSON.

    Example:
        >>> import numpy as np
        >>> from tinygrad_cnn.explain import Picture
        >>> picture = Picture(np.zeros((2, 3, 3), np.uint8), {"seed": 0})
        >>> picture
        Picture(2 x 3 pixels, info: seed)
        >>> picture.png()[:4]
        b'\\x89PNG'
    """

    def __init__(self, pixels: np.ndarray, info: dict[str, Any] | None = None):
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"Picture: wanted pixels of shape (H, W, 3) and dtype uint8, got {pixels.shape} and {pixels.dtype}")
        self.pixels, self.info = pixels, dict(info or {})

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file, the same bytes for the same picture and info."""
        from PIL import Image, PngImagePlugin  # slow to import, and not needed to compute a picture

        chunks = PngImagePlugin.PngInfo()
        for key, value in self.info.items():
            chunks.add_itxt(key, json.dumps(value))
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, format="PNG", pnginfo=chunks)
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write a PNG file; returns its path. The folder must exist."""
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"Picture.save: pictures are written as PNG, path ends in {path.suffix!r}; name it {path.stem}.png")
        path.write_bytes(self.png())
        return path

    def _repr_png_(self) -> bytes:
        return self.png()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.pixels, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        height, width, _ = self.pixels.shape
        return f"Picture({height} x {width} pixels" + (f", info: {', '.join(self.info)})" if self.info else ")")


def as_array(function: str, name: str, values: Any) -> np.ndarray:
    """The values of a tensor or an array; errors name the function and its argument.

    Raises:
        TypeError: something else than a tensor or array, or not of real numbers.
        ValueError: no values at all, or NaN or infinity among them.
    """
    if not isinstance(values, (Tensor, np.ndarray)):
        raise TypeError(f"{function}: {name} must be a Tensor or a NumPy array, got {type(values).__name__}")
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{function}: {name} must hold real numbers, got dtype {array.dtype}")
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{function}: {name} of shape {array.shape} is empty or holds NaN or infinity, for which there is no grey level")
    return array


def _scaled(function: str, values: np.ndarray, scale: tuple[float, float] | None) -> tuple[np.ndarray, tuple[float, float]]:
    """Numbers as uint8 grey levels, and the scale: scale[0] is black, scale[1] white, what lies outside is cut."""
    if scale is None:
        low, high = float(values.min()), float(values.max())
        limit = max(-low, high) or 1.0         # nothing but zeros: any limit will do
        scale = (-limit if low < 0 else 0.0, limit)
    low, high = float(scale[0]), float(scale[1])
    if not low < high:
        raise ValueError(f"{function}: scale must be (value of black, greater value of white), got {scale}")
    levels = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(levels + 0.5, 0, 255).astype(np.uint8), (low, high)           # halves go up, so 0 in -1 .. 1 is 128


def _columns(count: int) -> int:
    """The number of columns of a grid without holes if there is one not far from square, else of the squarest."""
    root = math.ceil(math.sqrt(count))
    return next((c for c in range(root, 2 * root + 1) if count % c == 0), root)


def _sheet(function: str, tiles: np.ndarray, columns: int | None, enlarge: int | None, pad: int) -> np.ndarray:
    """(N, H, W, 1 or 3) uint8 tiles, enlarged, in rows on one white sheet (height, width, 3)."""
    for name, value, least in (("columns", columns, 1), ("enlarge", enlarge, 1), ("pad", pad, 0)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{function}: {name} must be an integer of {least} or more, got {value!r}")
    factor = enlarge or math.ceil(TILE / min(tiles.shape[1:3]))
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)                  # (N, H, W, C) -> (N, H f, W f, C)
    count, height, width, _ = tiles.shape
    columns = min(columns or _columns(count), count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + pad) - pad, columns * (width + pad) - pad, 3), SEPARATOR, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + pad), (i % columns) * (width + pad)
        sheet[top:top + height, left:left + width] = tile
    return sheet


def grid(images: Tensor | np.ndarray, columns: int | None = None, scale: tuple[float, float] | None = None,
         enlarge: int | None = None, pad: int = 2, info: dict[str, Any] | None = None) -> Picture:
    """Images side by side in one picture, all on the same scale, with thin white lines between them.

    Args:
        images: (N, C, H, W), C = 1 (grey) or 3 (red, green, blue), or (N, H, W).
        columns: images per row; by default a number that makes the grid nearly square.
        scale: (value drawn black, value drawn white). By default one for all images: from 0 to the greatest value; with
            negative values symmetric about 0, which is then mid grey (128).
        enlarge: repeat every pixel so often in both directions; by default until an image is at least 64 pixels wide.
        pad: width of the lines in pixels, 0 or more.
        info: goes into the picture's `info`, beside the scale that was used.

    Returns:
        The picture.

    Raises:
        ValueError: another shape, no image, NaN or infinity among the values, scale[0] >= scale[1].

    Example:
        >>> import numpy as np
        >>> from tinygrad_cnn import explain
        >>> picture = explain.grid(np.array([[[[-1.0, 0.0, 1.0]]]]), enlarge=1, pad=0)
        >>> picture.pixels[0, :, 0]
        array([  0, 128, 255], dtype=uint8)
    """
    array = as_array("grid", "images", images)
    if array.ndim == 3:
        array = array[:, None]                                                   # (N, H, W) -> (N, 1, H, W)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(f"grid: images must have shape (N, 1, H, W), (N, 3, H, W) or (N, H, W), got {array.shape}")
    levels, used = _scaled("grid", array.transpose(0, 2, 3, 1), scale)           # (N, C, H, W) -> (N, H, W, C)
    return Picture(_sheet("grid", levels, columns, enlarge, pad), {**(info or {}), "scale": used})


def overlay(images: Tensor | np.ndarray, maps: Tensor | np.ndarray, columns: int | None = None, scale: tuple[float, float] | None = None,
            enlarge: int | None = None, pad: int = 2, info: dict[str, Any] | None = None) -> Picture:
    """Images in grey with maps laid over them: the larger the map's value, the redder the pixel.

    Args:
        images: (N, C, H, W); the mean over the channels is drawn.
        maps: (N, H, W), 0 or more, such as `saliency_map` returns; each is scaled by its own greatest value.
        columns, scale, enlarge, pad, info: as in `grid`; the scale is that of the images.

    Returns:
        The picture.

    Raises:
        ValueError: shapes that do not fit together, negative maps, NaN or infinity.

    Example:
        >>> import numpy as np
        >>> from tinygrad_cnn import explain
        >>> picture = explain.overlay(np.ones((1, 1, 1, 2)), np.array([[[0.0, 3.0]]]), enlarge=1)
        >>> picture.pixels.tolist()
        [[[255, 255, 255], [255, 60, 0]]]
    """
    pixels, heat = as_array("overlay", "images", images), as_array("overlay", "maps", maps).astype(np.float64)
    if pixels.ndim != 4 or heat.shape != (pixels.shape[0], *pixels.shape[2:]):
        raise ValueError(f"overlay: wanted images (N, C, H, W) and maps (N, H, W) of one size, got {pixels.shape} and {heat.shape}")
    if (heat < 0).any():
        raise ValueError("overlay: maps must be 0 or more; make one of a signed gradient with saliency_map")
    grey, used = _scaled("overlay", pixels.mean(1)[..., None], scale)            # (N, C, H, W) -> (N, H, W, 1)
    peaks = heat.max((1, 2), keepdims=True)
    share = (heat / np.where(peaks > 0, peaks, 1))[..., None]                    # (N, H, W) -> (N, H, W, 1)
    tiles = (grey * (1 - share) + np.array(HEAT) * share + 0.5).astype(np.uint8)
    return Picture(_sheet("overlay", tiles, columns, enlarge, pad), {**(info or {}), "scale": used})
