"""Visible-infrared recognition data: images of identities, seen by cameras of both modalities.

`LAYOUTS` names the data sets; `layouts.camera_folders`, `modality_lists` and `modality_folders`
describe their folders and lists. Nothing is downloaded, and no set is part of this project.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from tinyjax.data import images as image_files
from tinyjax.data import retrieval_protocols as protocols
from tinyjax.data import streaming
from tinyjax.data.classification import ImageReader, decode_item, decode_items
from tinyjax.data.layouts import camera_folders, modality_folders, modality_lists
from tinyjax.data.layouts.identity_images import IdentityImage, NoSplit, hold_out
from tinyjax.data.layouts.listing import OnError, existing_file, explain_missing
from tinyjax.data.layouts.selection import take_evenly
from tinyjax.data.modality import INFRARED
from tinyjax.data.options import RecognitionOptions, parse_size
from tinyjax.data.records import RecognitionSplit, RetrievalProtocol
from tinyjax.data.sources import AnyPath, open_source
from tinyjax.errors import UserError, suggest

PERSON_SIZE, FACE_SIZE = (288, 144), (128, 128)
TRAINING_SPLITS = ("train", "trainval")
VAL_STREAM = 1  # of the random division of training identities
MIN_VAL_IDENTITIES = 4  # a search among fewer is hardly ever wrong


class Layout(NamedTuple):
    """A layout of folders and lists."""

    read: Callable[[AnyPath, str, RecognitionOptions], list[IdentityImage]]
    protocols: Callable[[Sequence[IdentityImage]], dict[str, RetrievalProtocol]]
    size: tuple[int, int] = PERSON_SIZE
    has_val: bool = False  # the data set defines validation identities


def _read_faces(root: AnyPath, split: str, options: RecognitionOptions) -> list[IdentityImage]:
    return modality_folders.read_faces(root, split)


LAYOUTS = {
    "sysu": Layout(
        lambda root, split, options: camera_folders.read_sysu(root, split),
        protocols.sysu,
        has_val=True,
    ),
    "regdb": Layout(
        lambda root, split, options: modality_lists.read_regdb(root, split, options.trial),
        protocols.regdb,
    ),
    "llcm": Layout(
        lambda root, split, options: camera_folders.read_llcm(root, split), protocols.llcm
    ),
    "oulu": Layout(_read_faces, protocols.all_visible, FACE_SIZE),
    "buaa": Layout(_read_faces, protocols.one_visible, FACE_SIZE),
    "pairs": Layout(
        lambda root, split, options: modality_folders.read_pairs(
            root, split, options.test_fraction, options.seed
        ),
        protocols.regdb,
    ),
}


def load(options: RecognitionOptions) -> RecognitionSplit:
    """Load one split, in order of file name.

    Images are resized bilinearly with antialiasing; the AGW code uses Lanczos. With `stream` they
    stay on disk, and one that cannot be read raises UserError on access.

    Raises UserError for: a missing source, folder, list, split or identity; an image that is
    missing or cannot be read.
    """
    source, split = options.source, options.split
    if options.layout not in LAYOUTS:
        raise UserError(f"layout = {options.layout!r}: {suggest(options.layout, LAYOUTS)}")
    layout = LAYOUTS[options.layout]
    height, width = parse_size(options.size) or layout.size
    image_files.check_options(options.channels, options.range16, options.fit)
    with open_source(source) as root:
        options.check_streamable(root)
        listed = _existing_images(_read_split(root, layout, options), options.on_error)
        listed = _select_identities(listed, options)
        selected = take_evenly(listed, options.limit, lambda image: image.name)
        decode = partial(
            _decode,
            channels=options.channels,
            range16=options.range16,
            size=(height, width),
            fit=options.fit,
            corruption=options.corruption,
        )
        pixels: Any
        if options.stream:
            shape = (len(selected), height, width, options.channels)
            files = [image.file for image in selected]
            pixels = streaming.Images(ImageReader(selected, decode), shape, files)
        else:
            pixels, selected = decode_items(selected, decode, options.on_error)
    if not selected:
        raise UserError(f"{source}: split {split!r} has no valid images")
    classes = sorted({image.identity for image in selected})
    numbers = {name: k for k, name in enumerate(classes)}
    return RecognitionSplit(
        inputs={
            "image": pixels,
            "modality": np.array([image.modality for image in selected], np.uint8),
        },
        labels=np.array([numbers[image.identity] for image in selected], np.int32),
        cameras=np.array([image.camera for image in selected], np.int32),
        captures=_capture_numbers(selected, options.capture),
        names=tuple(image.name for image in selected),
        classes=tuple(classes),
        protocols={} if split in TRAINING_SPLITS else layout.protocols(selected),
        origin=_origin(options),
    )


def _origin(options: RecognitionOptions) -> tuple[str, int]:
    """Data set and trial, see `RecognitionSplit.origin`."""
    if options.layout == "pairs":  # the same names of identities may be used in several sets
        return f"pairs {PurePath(options.source).name.removesuffix('.zip')}", 0
    return options.layout, options.trial if options.layout == "regdb" else 0


# ---- selection


def _read_split(root: AnyPath, layout: Layout, options: RecognitionOptions) -> list[IdentityImage]:
    """The images of a split, in order of name."""
    split, fraction = options.split, options.val_fraction
    if fraction and split in ("train", "val") and not _has_val(root, layout, options):
        images = layout.read(root, "train", options)
        identities, seed = [image.identity for image in images], (options.seed, VAL_STREAM)
        held = hold_out(identities, fraction, seed, "val_fraction", MIN_VAL_IDENTITIES)
        images = [image for image in images if (image.identity in held) == (split == "val")]
    elif split == "val" and not layout.has_val:
        images = _read_named_val(root, layout, options)
    else:
        images = layout.read(root, split, options)
    return sorted(images, key=lambda image: image.name)


def _has_val(root: AnyPath, layout: Layout, options: RecognitionOptions) -> bool:
    """Whether a set defines its validation identities."""
    if layout.has_val:
        return True
    try:
        return bool(layout.read(root, "val", options))
    except NoSplit:
        return False


def _read_named_val(
    root: AnyPath, layout: Layout, options: RecognitionOptions
) -> list[IdentityImage]:
    """The images of the split "val" if the set has its list or folder."""
    try:
        return layout.read(root, "val", options)
    except NoSplit as error:
        raise UserError(
            f"{error}. To hold out training identities instead, give val_fraction = 0.2 in "
            "data.common"
        ) from error


def _select_identities(
    images: list[IdentityImage], options: RecognitionOptions
) -> list[IdentityImage]:
    """The images of `options.classes`."""
    if not options.classes:
        return images
    known = sorted({image.identity for image in images})
    for name in options.classes:
        if name not in known:
            raise UserError(
                f"{options.source}, split {options.split!r}: no identity {name!r} among "
                f"{len(known)}, from {known[0]} to {known[-1]}"
            )
    return [image for image in images if image.identity in options.classes]


def _existing_images(images: list[IdentityImage], on_error: OnError) -> list[IdentityImage]:
    existing, missing = [], []
    for image in images:
        if file := existing_file(image.file):
            existing.append(image._replace(file=file))
        else:
            missing.append(image)
    for image in missing:
        count = f"{len(missing)} of {len(images)} listed images are missing"
        on_error(
            "missing image", f"{image.file}: no such image ({count}){explain_missing(image.file)}"
        )
    return existing


def _capture_numbers(images: Sequence[IdentityImage], pattern: str) -> np.ndarray:
    """int32 [N]; images of an identity with the same capture have one number.

    pattern: see `RecognitionOptions.capture`; it replaces the captures of the layout.

    Raises UserError if it is invalid or does not match a name.
    """
    keys: list[tuple] = []
    for i, image in enumerate(images):
        capture = _match_capture(pattern, image.name) if pattern else image.capture
        keys.append((image.identity, capture) if capture else (i,))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int32)


def _match_capture(pattern: str, name: str) -> str:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"capture = {pattern!r}: not a regular expression ({error})") from error
    if compiled.groups < 1:
        raise UserError(rf"capture = {pattern!r}: give one group, such as '(\d+)_nir'")
    if not (match := compiled.search(name)) or match[1] is None:
        raise UserError(f"capture = {pattern!r}: does not match the name {name!r}")
    return match[1]


# ---- images


def _decode(
    image: IdentityImage, channels: int, **options: Any
) -> tuple[IdentityImage, np.ndarray | UserError]:
    """As `classification.decode_item`; infrared is read as gray and repeated."""
    gray = image.modality == INFRARED
    _, pixels = decode_item(image, 1 if gray else channels, **options)
    if gray and not isinstance(pixels, UserError):
        pixels = np.repeat(pixels, channels, axis=-1)
    return image, pixels
