"""Decode image files, and fit images to the network's input size."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile as OpenedImage

from tinyjax.data.image_headers import (
    SWAPPED,
    check_header,
    correct_counts,
    is_deep,
    read_orientation,
    upright_size,
)
from tinyjax.data.sources import ImageFile
from tinyjax.errors import UserError, suggest

Range16 = tuple[str, float, float]  # ("percentiles", low %, high %) or ("range", low, high)

PERCENTILES: Range16 = ("percentiles", 1.0, 99.0)
SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".tif", ".tiff", ".webp"),
)
FIT_METHODS = ("letterbox", "resize", "center")
CENTER_FRACTION = 0.875  # of the largest window that fits: ImageNet's usual evaluation
PIXEL_DIGITS = 2  # decimals of pixels: the precision of a relative box with six digits
GRAY = 114  # padding value of the YOLO family: ImageNet's mean times 255


# ---- decoding


def read_image(file: ImageFile, channels: int = 1, range16: Range16 = PERCENTILES) -> np.ndarray:
    """An image file as uint8 [H, W, channels]; see `decode_image`."""
    return _pixels(decode_image(file, channels, range16))


def read_pil(image: Image.Image, channels: int = 1, range16: Range16 = PERCENTILES) -> np.ndarray:
    """An image of Pillow as uint8 [H, W, channels], as `read_image` reads its file.

    Raises UserError as `decode_image` does; 16-bit color is recognized until Pillow decodes it.
    """
    name = getattr(image, "filename", "") or f"image of mode {image.mode}"
    with _name_in_errors(name):
        if image.format == "TIFF" and isinstance(image, OpenedImage) and image.tile and image.fp:
            # Pillow maps some files into memory and ignores that orientation swaps their sides.
            image.fp.seek(0)
            with _open_bytes(image.fp.read(), name) as copy:
                return _pixels(_convert(copy, name, channels, range16))
        check_header(image, name)
        return _pixels(_convert(image, name, channels, range16))


def decode_image(
    file: ImageFile,
    channels: int = 1,
    range16: Range16 = PERCENTILES,
    min_size: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> Image.Image:
    """Decode an image file to 8 bits in one channel or three.

    Color is converted to gray by luminance (ITU-R 601), gray to color by replication; alpha is
    left out. Deeper pixels (16-bit and 32-bit integers, floats) are mapped to 8 bits by `range16`,
    see `to_uint8`. EXIF orientation is applied.

    Args:
        min_size: (h, w) of the file -> the smallest (h, w) that is sufficient. A JPEG may then be
            decoded at a half, a quarter or an eighth of its size, which is faster.

    Raises UserError if Pillow cannot read the file, if it has too many pixels, 16-bit color, or
    several pages or frames (except thumbnails in a TIFF, and MPO, whose first picture is read),
    or if `channels` is neither 1 nor 3.
    """
    with _open(file) as image:
        return _convert(image, file, channels, range16, min_size)


def image_shape(file: ImageFile) -> tuple[int, int]:
    """(h, w) of an image file, as `read_image` returns it, from the header. Raises UserError."""
    with _open(file) as image:
        return upright_size(image)


def orientation(file: ImageFile) -> int:
    """The EXIF orientation of an image file: 1 is upright, 5 to 8 swap its sides. Raises
    UserError.
    """
    with _open(file) as image:
        return read_orientation(image)


def read_region(
    file: ImageFile,
    size: tuple[int, int],
    region: Callable[[tuple[int, int]], tuple[int, int, int, int]],
    channels: int = 1,
    range16: Range16 = PERCENTILES,
) -> np.ndarray:
    """A region of an image file, resized to uint8 [H, W, channels]; see `decode_image`.

    Args:
        size: (H, W).
        region: (h, w) of the file -> top, left, height, width of the region; called once.

    Raises UserError as `read_image`.
    """
    drawn: list[tuple[int, int, tuple[int, int, int, int]]] = []

    def min_size(shape):
        window = region(shape)
        drawn.append((*shape, window))
        return tuple(
            -(-side * out // length)
            for side, out, length in zip(shape, size, window[2:], strict=True)
        )

    image = decode_image(file, channels, range16, min_size)
    decoded = image.height, image.width
    h, w, window = drawn[0] if drawn else (*decoded, region(decoded))
    sy, sx = decoded[0] / h, decoded[1] / w
    top, left, height, width = window
    box = (left * sx, top * sy, (left + width) * sx, (top + height) * sy)
    return _pixels(image.resize(size[::-1], Image.Resampling.BILINEAR, box))


@contextmanager
def _open(file: ImageFile) -> Iterator[Image.Image]:
    with _name_in_errors(file), _open_bytes(file.read_bytes(), file) as image:
        yield image


@contextmanager
def _open_bytes(data: bytes, file: Any) -> Iterator[Image.Image]:
    if not data:
        raise UserError(f"{file}: an empty file")
    with Image.open(io.BytesIO(data)) as image:
        check_header(image, file)
        yield image


@contextmanager
def _name_in_errors(file: Any) -> Iterator[None]:
    """Raise UserError with the file's name for all errors of Pillow."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except UnidentifiedImageError as error:  # its message names the buffer, not the file
        raise UserError(f"{file}: not a readable image (unknown format); convert it") from error
    except Exception as error:  # Pillow's decoders raise many types for broken files
        raise UserError(f"{file}: not a readable image ({error})") from error


def _convert(
    image: Image.Image,
    file: Any,
    channels: int,
    range16: Range16,
    min_size: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> Image.Image:
    """`decode_image` of an opened file."""
    _check_channels(channels)
    orientation = read_orientation(image)
    if min_size and image.format == "JPEG":
        height, width = min_size(upright_size(image))
        image.draft(None, (height, width) if orientation in SWAPPED else (width, height))
    image.load()
    # Boxes refer to the upright image, as viewers show it. Pillow has already turned a TIFF.
    upright = image if orientation == 1 else ImageOps.exif_transpose(image)
    if is_deep(upright):
        deep = np.asarray(upright)
        if not np.isfinite(deep).all():
            raise UserError(f"{file}: some pixels are not finite; replace them by numbers")
        upright = Image.fromarray(to_uint8(correct_counts(deep, image), range16))
    mode = "L" if channels == 1 else "RGB"
    return upright if upright.mode == mode else upright.convert(mode)


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, C]."""
    return np.asarray(image).reshape(image.height, image.width, -1)


def to_uint8(raw: np.ndarray, rule: Range16) -> np.ndarray:
    """Map deep pixels of any shape to uint8: low -> 0 and high -> 255, clipped beyond.

    ("percentiles", p, q): low and high are percentiles of this image, as in a camera's automatic
    gain. ("range", low, high): fixed sensor counts, so that a gray value means the same temperature
    in all images.

    Raises UserError for any other rule, or if low is not below high.
    """
    _check_range16(rule)
    name, low, high = rule
    values = raw.astype(np.float32)
    if raw.dtype.itemsize > 2 and not np.array_equal(values, raw):  # large integers
        values = raw.astype(np.float64)
    if name == "percentiles":
        low, high = np.percentile(values, (low, high))
    unit = (values - low) / max(high - low, 1e-6)  # in a uniform image high == low
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


# ---- options


def check_options(channels: int, range16: Range16, fit: str) -> None:
    """Raise UserError for an invalid option, which would otherwise be reported for each image, or
    only for the first one that needs it.
    """
    _check_channels(channels)
    _check_range16(range16)
    _check_fit(fit)


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise UserError(f"channels = {channels}: give 1 (gray) or 3 (color)")


def _check_range16(rule: Any) -> None:
    match rule:
        case ("range", int() | float() as low, int() | float() as high) if low < high:
            return
        case ("percentiles", int() | float() as low, int() | float() as high) if (
            0 <= low < high <= 100
        ):
            return
    raise UserError(
        f'range16 = {rule!r}: give ("percentiles", low, high), in percent, or '
        '("range", low, high), with low < high'
    )


def _check_fit(method: str) -> None:
    if method not in FIT_METHODS:
        raise UserError(f"fit = {method!r}: {suggest(method, FIT_METHODS)}")


# ---- fitting to the network's input


def fit_image(
    image: np.ndarray, size: tuple[int, int], method: str = "letterbox"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring an image to `size`.

    "letterbox": aspect ratio kept, centered on gray. "resize": stretched. "center": the central
    `CENTER_FRACTION` of the largest window that fits.

    Args:
        image: uint8 [h, w, C].
        size: (H, W).

    Returns:
        uint8 [H, W, C], scale float32 [2] (sx, sy) and offset float32 [2] (ox, oy), see
        `to_network`. Except for "center", an image that has this size is returned unchanged.

    Raises UserError for another method.
    """
    scale, offset = fit_geometry(image.shape[:2], size, method)
    (h, w), (height, width) = image.shape[:2], size
    if method == "center":
        (sx, sy), (ox, oy) = scale.tolist(), offset.tolist()
        box = (-ox / sx, -oy / sy, (width - ox) / sx, (height - oy) / sy)
        return _resize(image, size, box), scale, offset
    if (h, w) == (height, width):
        return image, scale, offset
    new_w, new_h = np.rint(scale * (w, h)).astype(int).tolist()
    left, top = offset.astype(int).tolist()
    out = np.full((height, width, image.shape[-1]), GRAY, np.uint8)
    out[top : top + new_h, left : left + new_w] = _resize(image, (new_h, new_w))
    return out, scale, offset


def _resize(image: np.ndarray, size: tuple[int, int], box: Any = None) -> np.ndarray:
    """Bilinear, with antialiasing when shrinking, so that small objects are averaged, not skipped.

    box: xyxy of the region to resize; by default the full image.
    """
    source = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return _pixels(source.resize(size[::-1], Image.Resampling.BILINEAR, box))


def fit_geometry(
    shape: tuple[int, int], size: tuple[int, int], method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of `fit_image` for an image of `shape` (h, w). Raises as it does."""
    _check_fit(method)
    (h, w), (height, width) = shape, size
    if method == "center":
        ratio = max(height / h, width / w) / CENTER_FRACTION
        scale = np.array([ratio, ratio], np.float32)
        return scale, np.array([width - w * ratio, height - h * ratio], np.float32) / 2
    new_h, new_w = height, width
    if method == "letterbox":
        ratio = min(height / h, width / w)
        new_h, new_w = max(1, round(h * ratio)), max(1, round(w * ratio))
    # The scale of the rounded size, so that boxes match the pixels exactly.
    scale = np.array([new_w / w, new_h / h], np.float32)
    return scale, np.array([(width - new_w) // 2, (height - new_h) // 2], np.float32)


def to_network(boxes: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] xyxy from pixels of the file to pixels of the network's input.

    scale, offset: [2] in (x, y), as `fit_image` returns them.
    """
    return boxes * np.tile(scale, 2) + np.tile(offset, 2)


def to_file(boxes: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The inverse of `to_network`: from pixels of the network's input to pixels of the file."""
    return (boxes - np.tile(offset, 2)) / np.tile(scale, 2)


def relative_to_pixels(
    box: Sequence[float] | np.ndarray, shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Convert a box xyxy from [0, 1] to pixels of an image of `shape` (h, w).

    It is rounded to `PIXEL_DIGITS`, which recovers the box that a tool divided by the image's size.
    """
    height, width = shape
    pixels = np.multiply(box, (width, height, width, height))
    x1, y1, x2, y2 = np.round(pixels, PIXEL_DIGITS).tolist()
    return x1, y1, x2, y2
