"""What Pillow states about an opened image, corrected where its decoders would be wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile as OpenedImage

from tinyjax.errors import UserError

MAX_PIXELS = 2**26  # 8192 x 8192: with more, a file is broken or a decompression bomb
SWAPPED = (5, 6, 7, 8)  # EXIF orientations that exchange rows and columns

# Tags of TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
SUBFILE_TYPE, WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 254, 256, 257, 258, 262, 339
REDUCED_OR_MASK = 0b101  # bits of SUBFILE_TYPE: a thumbnail, a transparency mask
WHITE_IS_ZERO = 0  # of PHOTOMETRIC
UNSIGNED, SIGNED = 1, 2  # of SAMPLE_FORMAT
# libtiff returns pixels in the machine's byte order, but Pillow (11 to 13) swaps these again.
NATIVE_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


def check_header(image: Image.Image, file: Any) -> None:
    """Select the page, correct what Pillow would decode wrongly, and raise UserError for the rest.

    To be called before anything that decodes, such as `getexif` of a PNG.
    """
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{file}: {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}"
        )
    _select_page(image, file)
    if _has_deep_channels(image) and not is_deep(image):
        raise UserError(
            f"{file}: color with 16 bits per channel, of which only 8 would be read; give 8 bits "
            "per channel, or one channel (of a thermal camera all three are the same)"
        )
    tags = _tiff_tags(image)
    if SIGNED in tags.get(SAMPLE_FORMAT, ()) and not is_deep(image):
        raise UserError(f"{file}: signed pixels of 8 bits; give unsigned ones, or 16 bits")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode in ("F", "I"):
        raise UserError(
            f"{file}: WhiteIsZero, but neither 8 nor 16 bits; give pixels with BlackIsZero"
        )
    if isinstance(image, OpenedImage):
        image.tile = [_correct_tile(image, tile) for tile in image.tile]


def _select_page(image: Image.Image, file: Any) -> None:
    """Select the only page that is neither a thumbnail nor a mask."""
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # phones and thermal cameras add previews and depth
        return
    if image.format == "TIFF":
        pages = []
        for page in range(count):
            image.seek(page)
            if not _tiff_tags(image).get(SUBFILE_TYPE, 0) & REDUCED_OR_MASK:
                pages.append(page)
        image.seek(pages[0] if pages else 0)
        if len(pages) == 1:
            return
    raise UserError(f"{file}: {count} pages or frames; give each as an image of its own")


def _has_deep_channels(image: Image.Image) -> bool:
    """Return whether the file has more than 8 bits per channel, as far as Pillow tells."""
    if tags := _tiff_tags(image):
        return max(tags.get(BITS, (1,))) > 8
    if not isinstance(image, OpenedImage) or not image.tile:  # not a file, or already decoded
        return False
    args = image.tile[0].args
    if image.format == "PPM" and isinstance(args, tuple):
        return args[-1] > 255  # the largest value
    return image.format == "PNG" and str(args).endswith(";16B")


def _correct_tile(image: Image.Image, tile: Any) -> Any:
    """Pillow's description of how pixels are stored, changed where its decoder would be wrong."""
    if image.format == "PPM" and image.mode == "I":  # it scales counts to a maximum of 65535
        if tile.codec_name == "ppm":
            return tile._replace(codec_name="raw", args="I;16B")
        if tile.codec_name == "ppm_plain":
            return tile._replace(args=(tile.args[0], 65535))
    if tile.codec_name == "libtiff" and tile.args[0] in NATIVE_ORDER:
        return tile._replace(args=(NATIVE_ORDER[tile.args[0]], *tile.args[1:]))
    return tile


def correct_counts(deep: np.ndarray, image: Image.Image) -> np.ndarray:
    """The values of deep pixels; Pillow ignores some tags of a TIFF."""
    tags = _tiff_tags(image)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        return 65535 - deep
    if tags.get(BITS) == (32,) and tags.get(SAMPLE_FORMAT, (UNSIGNED,)) == (UNSIGNED,):
        return deep.view(np.uint32)
    return deep


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF by number; empty for other formats."""
    return getattr(image, "tag_v2", {})


def is_deep(image: Image.Image) -> bool:
    """Return whether Pillow keeps more than 8 bits per pixel and channel."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 is upright."""
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(h, w) of the upright image."""
    height, width = image.height, image.width
    if tags := _tiff_tags(image):  # Pillow's size of a TIFF may already be swapped
        height, width = tags[HEIGHT], tags[WIDTH]
    return (width, height) if read_orientation(image) in SWAPPED else (height, width)
