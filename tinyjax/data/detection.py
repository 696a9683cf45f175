"""Detection data from files: a layout's listing, validated, decoded and resized."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinyjax.data import images, streaming
from tinyjax.data.image_headers import SWAPPED
from tinyjax.data.images import PERCENTILES, Range16
from tinyjax.data.layouts.listing import (
    Entry,
    Listing,
    OnError,
    existing_file,
    explain_missing,
    raise_error,
)
from tinyjax.data.layouts.recognition import list_split
from tinyjax.data.layouts.selection import (
    apply_protocol,
    assign_roles,
    filter_entries,
    rename_categories,
    take_evenly,
)
from tinyjax.data.objects import area_notices, collect_objects, valid_box
from tinyjax.data.options import DetectionOptions, parse_size
from tinyjax.data.prefetch import map_ahead
from tinyjax.data.records import DetectionSplit, build_split
from tinyjax.data.sources import AnyPath, open_source
from tinyjax.errors import UserError


def load(options: DetectionOptions) -> DetectionSplit:
    """Load one split, in order of file name.

    The same images and boxes in another layout give the same arrays, bit for bit.
    `truth["images"]` keeps all fields of the source; its field "background" counts the objects of
    each unused category. A box that extends beyond its image is not clipped.

    With `stream`, images stay on disk, and one that cannot be read, or differs in size from its
    label file, raises UserError on access.

    Raises UserError for: a missing source, split, image or class; a file that does not follow its
    layout; images of different sizes without `size`; an image whose size differs from its label
    file; a box that is empty, not finite or outside its image.
    """
    size = parse_size(options.size)
    images.check_options(options.channels, options.range16, options.fit)
    if options.fit == "center":
        raise UserError("fit = 'center': boxes may lie outside the image; give letterbox or resize")
    if options.stream and size is None:
        raise UserError(
            "data.stream: give data.common.size, (height, width) of the network's input"
        )
    decode = partial(
        _decode,
        channels=options.channels,
        range16=options.range16,
        size=size,
        fit=options.fit,
        corruption=options.corruption,
    )
    samples: list[_Sample] = []
    objects, infos = [], []
    num_wrong_areas = 0
    with open_source(options.source) as root:
        options.check_streamable(root)
        listing, classes, ignored = _select(root, options)
        class_labels = {name: label for label, name in enumerate(classes)}
        if options.stream:
            iterator = _measure_entries(listing, size, options.fit, options.on_error)
        else:
            iterator = _decode_entries(listing, decode, options.on_error)
        for sample in iterator:
            image_objects, background, wrong_areas = collect_objects(
                sample.entry.labels,
                sample.shape,
                class_labels,
                ignored,
                listing.relative,
                options.on_error,
            )
            height, width = sample.shape
            samples.append(sample)
            objects.append(image_objects)
            num_wrong_areas += wrong_areas
            extra = {"height": height, "width": width, "background": background}
            infos.append({**sample.entry.info, **extra})
    if not samples:
        raise _no_images(listing, options.split)
    if size is None:
        _check_same_shape(samples, listing.source)
    pixels: Any
    if options.stream and size:
        entries = [sample.entry for sample in samples]
        pixels = streaming.Images(
            ImageReader(entries, decode),
            (len(samples), *size, options.channels),
            [entry.file for entry in entries],
        )
    else:
        pixels = [sample.image for sample in samples]
    scale = np.stack([sample.scale for sample in samples])
    offset = np.stack([sample.offset for sample in samples])
    split = build_split(
        pixels, objects, infos, classes, scale, offset, frequencies=listing.frequencies
    )
    notices = [*listing.notices, *area_notices(num_wrong_areas, objects)]
    return split._replace(notices=tuple(notices))


def _select(
    root: AnyPath, options: DetectionOptions
) -> tuple[Listing, tuple[str, ...], frozenset[str]]:
    """The listing of the images and boxes to use, the scored classes and the ignored categories."""
    listing = list_split(root, options.split, options.layout, options.first_pixel, options.on_error)
    listing = rename_categories(listing, options.rename)
    listing = filter_entries(listing, options.where)
    listing = apply_protocol(
        listing, options.empty, options.min_area, options.min_height, options.small
    )
    listing = listing._replace(entries=take_evenly(listing.entries, options.limit, _file_name))
    classes, ignored = assign_roles(
        listing, options.classes, options.ignore_classes, options.allow_missing
    )
    return listing, classes, ignored


def drop_invalid(listing: Listing, split: str, on_error: OnError = raise_error) -> Listing:
    """The listing in order of file name, without the images and boxes that `load` reports to
    `on_error`. Raises UserError if no image is left.
    """
    entries = []
    for sample in _decode_entries(listing, partial(_decode, channels=1), on_error):
        labels = [
            label
            for label in sample.entry.labels
            if valid_box(label, sample.shape, listing.relative, on_error) is not None
        ]
        entries.append(sample.entry._replace(labels=labels))
    if not entries:
        raise _no_images(listing, split)
    return listing._replace(entries=entries)


def image_shapes(listing: Listing) -> np.ndarray:
    """int [N, 2], (height, width) of the readable images, from their headers."""
    shapes = []
    for entry in listing.entries:
        try:
            shapes.append(images.image_shape(entry.file))
        except UserError:  # which `load` reports
            continue
    return np.array(shapes, np.int64).reshape(-1, 2)


# ---- images


class _Sample(NamedTuple):
    entry: Entry
    image: np.ndarray  # uint8 [H, W, C], the network's input size; empty if it stays on disk
    shape: tuple[int, int]  # (h, w) of the file
    scale: np.ndarray  # float32 [2] (sx, sy), see `images.fit_image`
    offset: np.ndarray  # float32 [2] (ox, oy)


@dataclass(frozen=True)
class ImageReader:
    """Reads an image of a streamed split by its index."""

    entries: list[Entry]
    decode: partial

    def __call__(self, i: int) -> np.ndarray:
        sample = self.decode(self.entries[i])
        if isinstance(sample, UserError):
            raise sample
        if message := _size_mismatch(sample.entry, sample.shape):
            raise UserError(message)
        return sample.image


@dataclass(frozen=True)
class FrameSource:
    """Samples of a streamed split, for `streaming.batches`: images and their boxes."""

    read: Callable[[int], np.ndarray]
    arrays: dict[str, np.ndarray]  # boxes, labels, valid, ignore: [N, ...]

    def __call__(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": self.read(i), **{name: rows[i] for name, rows in self.arrays.items()}}


def _existing_entries(listing: Listing, on_error: OnError) -> list[Entry]:
    """The entries whose image exists, in order of file name."""
    existing: list[Entry] = []
    missing: list[Entry] = []
    for entry in listing.entries:
        if file := existing_file(entry.file):
            existing.append(entry._replace(file=file))
        else:
            missing.append(entry)
    for entry in missing:
        count = f"{len(missing)} of {len(listing.entries)} images in {listing.source} are missing"
        message = f"{entry.file}: no such image ({count}){explain_missing(entry.file)}"
        on_error("missing image", message)
    return sorted(existing, key=_file_name)


def _file_name(entry: Entry) -> str:
    return str(entry.info["file_name"])


def _decode_entries(
    listing: Listing, decode: Callable[[Entry], _Sample | UserError], on_error: OnError
) -> Iterator[_Sample]:
    """The valid images in order of file name, decoded a few images ahead."""
    for sample in map_ahead(decode, _existing_entries(listing, on_error)):
        if isinstance(sample, UserError):
            on_error("unreadable image", str(sample))
        elif message := _size_mismatch(sample.entry, sample.shape):
            on_error("size mismatch", message)
        else:
            yield sample


def _measure_entries(listing: Listing, size: Any, fit: str, on_error: OnError) -> Iterator[_Sample]:
    """As `_decode_entries`, without pixels: sizes are from the label files or, if these have none,
    from the images' headers.
    """
    for entry in _existing_entries(listing, on_error):
        shape = (int(entry.info.get("height") or 0), int(entry.info.get("width") or 0))
        try:
            shape = shape if all(shape) else images.image_shape(entry.file)
        except UserError as error:
            on_error("unreadable image", str(error))
            continue
        yield _Sample(entry, np.zeros(0), shape, *images.fit_geometry(shape, size, fit))


def _decode(
    entry: Entry,
    channels: int,
    range16: Range16 = PERCENTILES,
    size: tuple[int, int] | None = None,
    fit: str = "letterbox",
    corruption: tuple[str, int] | None = None,
) -> _Sample | UserError:
    try:
        image = images.read_image(entry.file, channels, range16)
        if corruption:
            from tinyjax.data.corruptions.corrupt import corrupt  # imports scipy

            image = corrupt(image, *corruption, _file_name(entry))
        height, width, _ = image.shape
        fitted, scale, offset = images.fit_image(image, size or (height, width), fit)
        return _Sample(entry, fitted, (height, width), scale, offset)
    except UserError as error:
        return error


def _size_mismatch(entry: Entry, shape: tuple[int, int]) -> str:
    """A message if the image's size differs from that in its label file; else ""."""
    height, width = shape
    recorded = entry.info.get("height") or height, entry.info.get("width") or width
    if recorded == shape:
        return ""
    if recorded == (width, height) and (turn := images.orientation(entry.file)) in SWAPPED:
        return (
            f"{entry.file}: EXIF orientation {turn} turns the image to {height} x {width} (height "
            f"x width), but its label file has the size of the unturned pixels, {width} x "
            f"{height}: its boxes were drawn on those. Remove the tag (exiftool -Orientation= "
            "FILE), so that pixels and boxes fit, or label the turned image"
        )
    return (
        f"{entry.file}: the image is {height} x {width} (height x width), but "
        f"{recorded[0]} x {recorded[1]} in its label file; its boxes would not fit"
    )


def _check_same_shape(samples: list[_Sample], source: str) -> None:
    shapes = sorted({sample.shape for sample in samples})
    if len(shapes) > 1:
        raise UserError(
            f"{source}: images of {len(shapes)} sizes, from {shapes[0]} to {shapes[-1]} "
            "(height, width); give size = (height, width) of the network's input"
        )


def _no_images(listing: Listing, split: str) -> UserError:
    return UserError(f"{listing.source}: split {split!r} has no valid images")
