"""Options of the loaders: those that a config's `data` may set, and internal ones."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from tinyjax.data.images import PERCENTILES, Range16
from tinyjax.data.layouts.listing import OnError, raise_error
from tinyjax.data.sources import AnyPath
from tinyjax.errors import UserError

# Not set in `data.common`.
INTERNAL = ("layout", "on_error", "stream", "allow_missing", "corruption")


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options of all loaders of files.

    Attributes:
        source: a folder, a .zip that is read in place, YOLO's yaml or a COCO json.
        split: name of the split.
        classes: names in the order of the labels; by default all.
        range16: how deep pixels are mapped to 8 bits, see `images.to_uint8`.
        limit: at most this many images, evenly spaced in order of name; 0: all.
        on_error: called with the problem and the message for each invalid image or box, which is
            left out if the callback returns; by default the first one raises UserError.
        stream: leave the images on disk; the split then has a `streaming.Images`.
        corruption: name and severity of a corruption, applied to images at the size of their files,
            see `corrupt.corrupt`.
    """

    source: str | Path
    split: str
    classes: tuple[str, ...] = ()
    range16: Range16 = PERCENTILES
    limit: int = 0
    on_error: OnError = raise_error
    stream: bool = False
    corruption: tuple[str, int] | None = None

    def check_streamable(self, root: AnyPath) -> None:
        """Raise UserError if `stream` is set and the source is a zip."""
        if self.stream and not isinstance(root, Path):
            raise UserError(f"{self.source}: data.stream cannot read images from a zip; unpack it")


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(LoadOptions):
    """Options of `detection.load`.

    Attributes:
        size: (H, W), or one number for a square: the network's input in pixels; None if all images
            share one size, which is then kept.
        fit: "letterbox" or "resize", how images are brought to `size`, see `images.fit_image`.
        channels: 1 or 3.
        classes: the scored categories; by default all that the source does not mark as ignored.
        layout: of `recognition.LAYOUTS` or `catalog.DETECTION_SETS`; "auto": the recognized one.
        ignore_classes: categories that are neither objects nor background. A category in neither
            list is background.
        first_pixel: 0, 1 or None, of VOC files, see `voc.read_listing`.
        rename: category in the source -> new name.
        where: conditions on the fields of images, see `selection.filter_entries`.
        empty, min_area, min_height, small: images and boxes that a protocol excludes, see
            `selection.apply_protocol`.
        allow_missing: `classes` and `ignore_classes` are those of another data set; some of them,
            but not all classes, may be missing in this one.
    """

    size: Any = None
    fit: str = "letterbox"
    channels: int = 1
    layout: str = "auto"
    ignore_classes: tuple[str, ...] = ()
    first_pixel: int | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    empty: str = "keep"
    min_area: float | None = None
    min_height: Mapping[str, float] = field(default_factory=dict)
    small: str = "drop"
    allow_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(LoadOptions):
    """Options of `classification.load`.

    Attributes:
        size: (H, W), or one number for a square: the network's input in pixels.
        fit: how images are brought to `size`, see `images.fit_image`.
        channels: 1 or 3.
        source: for the layout "tfds" the folder of a prepared version, with dataset_info.json.
        classes: images of other classes are left out.
        layout: "folder", "list" or "tfds".
    """

    size: Any
    fit: str = "resize"
    channels: int = 3
    layout: str = "folder"


@dataclass(frozen=True, kw_only=True)
class RecognitionOptions(LoadOptions):
    """Options of `recognition.load`.

    Attributes:
        size: (H, W), or one number for a square; by default that of the layout's networks.
        fit: how images are brought to `size`, see `images.fit_image`.
        channels: 1 or 3; an infrared image is read as gray and repeated.
        classes: identities to keep; by default all of the split.
        layout: of `recognition.LAYOUTS`.
        trial: of RegDB, 1..10; each trial has its own training and test identities.
        val_fraction: fraction of the training identities that form the split "val" and are left out
            of "train"; 0: none. SYSU-MM01 has its own split "val".
        test_fraction: fraction of the identities that form the split "test", of "pairs" without
            lists.
        seed: of these two divisions.
        capture: regular expression, searched in the names of images; images of an identity with the
            same text of the first group are of one moment and are not compared. "": none.
    """

    size: Any = None
    fit: str = "resize"
    channels: int = 3
    layout: str = "pairs"
    trial: int = 1
    val_fraction: float = 0.0
    test_fraction: float = 0.5
    seed: int = 0
    capture: str = ""


def config_fields(options: type[LoadOptions]) -> tuple[list[str], list[str]]:
    """The names of the options that a config may set, and of the required ones."""
    known = [option for option in fields(options) if option.name not in INTERNAL]
    required = [
        option.name
        for option in known
        if option.default is MISSING and option.default_factory is MISSING
    ]
    return [option.name for option in known], required


def parse_size(size: Any) -> tuple[int, int] | None:
    """(height, width); a single number is a square's side. Raises UserError for anything else."""
    sides = (size, size) if isinstance(size, int) else size
    if sides is None:
        return None
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise UserError(f"size = {size!r}: give (height, width) in pixels, such as (256, 320)")
    return tuple(sides)
