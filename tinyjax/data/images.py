"""Reading image files, from folders and from zips, and fitting them to the network's input."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tinyjax.errors import UserError, suggest

Place = Path | zipfile.Path  # the two share what is used here: `/`, iterdir, is_file, read_bytes
Rule = tuple[str, float, float]  # ("percentiles", low %, high %) or ("range", low, high)

PERCENTILES: Rule = ("percentiles", 1.0, 99.0)
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FITS = ("letterbox", "resize", "center")
CENTER = 0.875  # of the largest window that fits: ImageNet's usual evaluation
MOST_PIXELS = 2**26  # 8192 x 8192: a file that says it has more is broken, or a bomb
MOST_BYTES, MOST_RATIO = 2**24, 200  # of a zip's entry, unpacked, and unpacked to packed
DIGITS = 2  # of a pixel: what six digits of a relative box are good for, and no labeller's hand is
GRAY = 114  # mid-gray in the sense of the YOLO family: ImageNet's mean times 255


class Bytes(Protocol):
    """An image file: a path, an entry of a zip, or a record."""

    @property
    def name(self) -> str: ...
    def is_file(self) -> bool: ...
    def read_bytes(self) -> bytes: ...


@contextmanager
def opened(source: str | Path) -> Iterator[Place]:
    """The root of a folder or of a .zip, which is read in place; for a yaml that of its folder.

    Raises UserError if `source` is neither, if an entry of the zip would leave the folder it is
    unpacked to, or is packed so tightly that it can only be a decompression bomb.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        yield path
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        if others := [f for f in path.parent.glob("*.y*ml") if f != path]:
            raise UserError(f"{path}: {others[0].name} stands beside it; give the folder as source")
        yield path.parent
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: a broken zip ({error}); pack or download it anew") from error
        with archive as file:
            for entry in file.infolist():
                _check_entry(path, entry)
            yield zipfile.Path(file)
    elif path.exists():
        raise UserError(f"{path}: neither a folder nor a .zip file")
    else:
        raise UserError(f"{path}: no such folder or .zip file")


def content(file: Bytes) -> bytes:
    """What a small file holds. Raises UserError if it cannot be read."""
    try:
        return file.read_bytes()
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: a zip that is encrypted, or packed by a method that Python does not know
        raise UserError(f"{file}: cannot be read ({error})") from error


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    parts = PurePosixPath(entry.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise UserError(f"{path}: entry {entry.filename!r} leaves the folder; pack the zip anew")
    if entry.file_size > MOST_BYTES and entry.file_size > MOST_RATIO * entry.compress_size:
        raise UserError(
            f"{path}: entry {entry.filename!r} unpacks {entry.compress_size:,} bytes to "
            f"{entry.file_size:,}: a decompression bomb? unpack it yourself and give the folder"
        )


def read(place: Bytes, channels: int = 1, range16: Rule = PERCENTILES) -> np.ndarray:
    """One image file as uint8 [H, W, channels], see `picture`."""
    return _pixels(picture(place, channels, range16))


def picture(
    place: Bytes,
    channels: int = 1,
    range16: Rule = PERCENTILES,
    enough: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> Image.Image:
    """One image file, 8 bits in one channel or three.

    Color becomes gray by luminance (ITU-R 601), gray becomes color by replication. Deeper pixels
    (16-bit integers, floats) come to 8 bits by `range16`, see `to_uint8`; nothing else does.
    enough: (h, w) of the file -> the least (h, w) to decode it at; a JPEG may then come at a half,
    a quarter or an eighth of its size, which is faster.

    Raises UserError if the file is no image that Pillow can read, has more than `MOST_PIXELS`, or
    `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise UserError(f"channels = {channels}: give 1 (gray) or 3 (color)")
    try:
        data = place.read_bytes()
        with Image.open(io.BytesIO(data)) as file:
            if file.width * file.height > MOST_PIXELS:
                raise UserError(
                    f"{place}: says it is {file.width} x {file.height} pixels; at most "
                    f"{MOST_PIXELS:,} pixels are read"
                )
            if _deep_color(data):
                raise UserError(
                    f"{place}: 16 bits a channel in color, of which only 8 would be read; give "
                    "8 bit, or one channel"
                )
            orientation = _orientation(file)
            if enough and file.format == "JPEG":
                height, width = enough(_shape(file))
                file.draft(None, (height, width) if orientation >= 5 else (width, height))
            file.load()
            # Boxes are drawn on what a viewer shows.
            found = file if orientation == 1 else ImageOps.exif_transpose(file)
            if found.mode in ("I", "F") or found.mode.startswith("I;16"):
                deep = np.asarray(found)
                if not np.isfinite(deep).all():
                    raise UserError(f"{place}: some pixels are not finite numbers; fill them")
                found = Image.fromarray(to_uint8(deep, range16))
            mode = "L" if channels == 1 else "RGB"
            return found if found.mode == mode else found.convert(mode)
    except UserError:
        raise
    except UnidentifiedImageError as error:  # names the buffer that we gave it
        raise UserError(f"{place}: not a readable image (of no format that is known)") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise UserError(f"{place}: not a readable image ({error})") from error


def shape_of(data: bytes) -> tuple[int, int]:
    """(h, w) of an image file, as `read` turns it."""
    with Image.open(io.BytesIO(data)) as file:
        return _shape(file)


def view(
    place: Bytes,
    size: tuple[int, int],
    region: Callable[[tuple[int, int]], tuple[int, int, int, int]],
    channels: int = 1,
    range16: Rule = PERCENTILES,
) -> np.ndarray:
    """A part of an image file, uint8 [H, W, channels], see `picture`.

    size: (H, W). region: (h, w) of the file -> top, left, height and width of the part, drawn once.
    Raises UserError as `read`.
    """
    drawn: list[tuple[int, int, tuple[int, int, int, int]]] = []

    def enough(shape):
        part = region(shape)
        drawn.append((*shape, part))
        return tuple(
            -(-side * to // of) for side, to, of in zip(shape, size, part[2:], strict=True)
        )

    image = picture(place, channels, range16, enough)
    now = image.height, image.width
    h, w, part = drawn[0] if drawn else (*now, region(now))
    y, x = now[0] / h, now[1] / w
    top, left, height, width = part
    box = (left * x, top * y, (left + width) * x, (top + height) * y)
    return _pixels(image.resize(size[::-1], Image.Resampling.BILINEAR, box))


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, C]."""
    return np.asarray(image).reshape(image.height, image.width, -1)


def _orientation(file: Image.Image) -> int:
    """EXIF's: 1 as it is; from 5 on rows of the file are columns of the picture."""
    return file.getexif().get(ExifTags.Base.Orientation, 1)


def _shape(file: Image.Image) -> tuple[int, int]:
    """(h, w) of the picture."""
    height, width = file.height, file.width
    return (width, height) if _orientation(file) >= 5 else (height, width)


def _resized(image: np.ndarray, size: tuple[int, int], box: Any = None) -> np.ndarray:
    """Bilinear, with the filter widened when shrinking, so that small objects are averaged and not
    skipped. box: the part of the image, x and y of two corners.
    """
    whole = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return _pixels(whole.resize(size[::-1], Image.Resampling.BILINEAR, box))


def _deep_color(data: bytes) -> bool:
    """Whether it is a PNG of 16 bits a channel with color or opacity (PNG specification, IHDR)."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24] == 16 and data[25] != 0


def to_uint8(raw: np.ndarray, rule: Rule) -> np.ndarray:
    """Deep pixels of any shape to uint8, low -> 0 and high -> 255, clipped beyond.

    ("percentiles", p, q): low and high are this image's own percentiles, which is what a camera's
    automatic gain does. ("range", low, high): fixed counts, so that a gray value keeps its
    temperature from image to image.

    Raises UserError for another name, or a rule whose high does not exceed its low.
    """
    name, low, high = rule
    if name not in ("percentiles", "range") or not low < high:
        raise UserError(
            f'range16 = {rule!r}: give ("percentiles", low, high) or '
            '("range", low, high), with low < high'
        )
    values = raw.astype(np.float32)
    if name == "percentiles":
        low, high = np.percentile(values, (low, high))
    unit = (values - low) / max(high - low, 1e-6)  # a flat image has no span of its own
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def fit(
    image: np.ndarray, size: tuple[int, int], how: str = "letterbox"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring an image to `size`: "letterbox", aspect kept, centerd on mid-gray; "resize", stretched;
    or "center", the middle of it, `CENTER` of what fits.

    image: uint8 [h, w, C]. size: (H, W). Raises UserError for another rule.
    Returns uint8 [H, W, C], scale float32 [2] (sx, sy) and offset float32 [2] (ox, oy), see
    `to_network`. An image of that size already comes back as it is, unless it is cut.
    """
    scale, offset = placed(image.shape[:2], size, how)
    (h, w), (height, width) = image.shape[:2], size
    if how == "center":
        (x, y), (left, top) = scale.tolist(), offset.tolist()
        box = (-left / x, -top / y, (width - left) / x, (height - top) / y)
        return _resized(image, size, box), scale, offset
    if (h, w) == (height, width):
        return image, scale, offset
    new_w, new_h = np.rint(scale * (w, h)).astype(int).tolist()
    left, top = offset.astype(int).tolist()
    out = np.full((height, width, image.shape[-1]), GRAY, np.uint8)
    out[top : top + new_h, left : left + new_w] = _resized(image, (new_h, new_w))
    return out, scale, offset


def placed(
    shape: tuple[int, int], size: tuple[int, int], how: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of `fit` for an image of `shape` (h, w). Raises UserError as it does."""
    if how not in FITS:
        raise UserError(f"fit = {how!r}: {suggest(how, FITS)}")
    (h, w), (height, width) = shape, size
    if how == "center":
        ratio = max(height / h, width / w) / CENTER
        scale = np.array([ratio, ratio], np.float32)
        return scale, np.array([width - w * ratio, height - h * ratio], np.float32) / 2
    new_h, new_w = height, width
    if how == "letterbox":
        ratio = min(height / h, width / w)
        new_h, new_w = max(1, round(h * ratio)), max(1, round(w * ratio))
    scale = np.array([new_w / w, new_h / h], np.float32)  # of the whole pixels, so boxes are exact
    return scale, np.array([(width - new_w) // 2, (height - new_h) // 2], np.float32)


def to_network(boxes: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] xyxy from pixels of the file to pixels of the network's input.

    scale, offset: [2] in (x, y), as `letterbox` returns them.
    """
    return boxes * np.tile(scale, 2) + np.tile(offset, 2)


def to_file(boxes: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The inverse of `to_network`: detections back to the pixels in which they are scored."""
    return (boxes - np.tile(offset, 2)) / np.tile(scale, 2)


def in_pixels(
    box: Sequence[float] | np.ndarray, shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box xyxy in parts of the sides of an image of `shape` (h, w), in its pixels.

    Rounded to `DIGITS`, so that it is what was labeled before a tool divided it by the size.
    """
    height, width = shape
    x1, y1, x2, y2 = np.round(np.multiply(box, (width, height, width, height)), DIGITS).tolist()
    return x1, y1, x2, y2
