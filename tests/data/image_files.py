"""Image files as cameras write them: TIFF with any tags and pages, PGM, and their pixels."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np

RANGE = ("range", 3000, 3600)  # of the counts of `counts`
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
FIELD_CODES = {"H": 3, "I": 4}  # of TIFF: SHORT, LONG


def counts(shape=(6, 9), seed=0):
    """Counts of a thermal camera, uint16."""
    return np.random.default_rng(seed).integers(2900, 3700, shape).astype(np.uint16)


def to_8_bits(values, low=3000, high=3600):
    unit = (values.astype(np.float64) - low) / (high - low)
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def save(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff(*pages: np.ndarray, order: str = "<", deflate: bool = False, planar: int = 1, **tags: int):
    """A TIFF of pages [h, w] or [h, w, C] of any dtype.

    order: "<" (II) or ">" (MM). planar: 2 stores one plane per channel. tags: t254=1 for tag 254
    of all pages; a list has one value for each page.
    """
    out = bytearray(struct.pack(f"{order}2sHI", {"<": b"II", ">": b"MM"}[order], 42, 0))
    link = 4
    for number, pixels in enumerate(pages):
        height, width = pixels.shape[:2]
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        planes = np.moveaxis(pixels.reshape(height, width, channels), 2, 0)
        stored = [pixels] if planar == 1 else [*planes]
        strips = [s.astype(s.dtype.newbyteorder(order)).tobytes() for s in stored]
        strips = [zlib.compress(strip) for strip in strips] if deflate else strips
        offsets = [_append(out, strip) for strip in strips]
        fields = {
            256: [width],
            257: [height],
            258: [8 * pixels.dtype.itemsize] * channels,
            259: [8 if deflate else 1],
            262: [1 if channels < 3 else 2],
            273: offsets,
            277: [channels],
            278: [height],
            279: [len(strip) for strip in strips],
            284: [planar],
            339: [SAMPLE_FORMATS[pixels.dtype.kind]] * channels,
        }
        for tag, value in tags.items():
            fields[int(tag[1:])] = [value[number] if isinstance(value, list) else value]
        directory = b"".join(
            _field(out, order, tag, values) for tag, values in sorted(fields.items())
        )
        start = _append(out, struct.pack(f"{order}H", len(fields)) + directory + bytes(4))
        struct.pack_into(f"{order}I", out, link, start)
        link = len(out) - 4
    return bytes(out)


def _field(out: bytearray, order: str, tag: int, values: Sequence[int]) -> bytes:
    code = "I" if tag in (273, 279) else "H"
    data = struct.pack(f"{order}{len(values)}{code}", *values)
    if len(data) > 4:
        data = struct.pack(f"{order}I", _append(out, data))
    return struct.pack(f"{order}HHI", tag, FIELD_CODES[code], len(values)) + data.ljust(4, b"\0")


def _append(out: bytearray, data: bytes) -> int:
    """Append at an even position and return it."""
    out += bytes(len(out) % 2)
    out += data
    return len(out) - len(data)


def pgm(pixels: np.ndarray, maximum: int, plain: bool = False) -> bytes:
    """A PGM of pixels [h, w], or a PPM of [h, w, 3], whose counts are at most `maximum`."""
    height, width = pixels.shape[:2]
    number = (2 if pixels.ndim == 2 else 3) + (0 if plain else 3)
    header = f"P{number}\n# a camera\n{width} {height}\n{maximum}\n".encode()
    if plain:
        return header + " ".join(map(str, pixels.ravel().tolist())).encode()
    return header + pixels.astype(">u2" if maximum > 255 else "u1").tobytes()


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels as a viewer shows them, by the table of EXIF 2.32, tag 274."""
    swapped = pixels.swapaxes(0, 1)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: swapped,
        6: swapped[:, ::-1],
        7: swapped[::-1, ::-1],
        8: swapped[::-1],
    }[orientation]
