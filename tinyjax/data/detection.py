"""Detection data from files: a layout's listing, judged, decoded and brought to one size."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tinyjax.data import images, streaming
from tinyjax.data.images import PERCENTILES, Place, Rule, opened
from tinyjax.data.layouts.catalog import BOXES
from tinyjax.data.layouts.listing import (
    SAME_SPLIT,
    Entry,
    Label,
    Listing,
    Refuse,
    chosen,
    files,
    homes,
    refuse,
    renamed,
    roles,
    spread,
)
from tinyjax.data.layouts.published import mended, published
from tinyjax.data.records import Objects, Split, stack
from tinyjax.errors import UserError, suggest

LAYOUTS = ("arrayrecord", "voc", "yolo", "coco")  # the order in which "auto" looks for them
AHEAD = 16  # images that are decoded before they are asked for: what the first broken one waits for

Given = TypeVar("Given")
Made = TypeVar("Made")


def load(
    source: str | Path,
    split: str,
    classes: Sequence[str] = (),
    ignore_classes: Sequence[str] = (),
    layout: str = "auto",
    size: tuple[int, int] | None = None,
    fit: str = "letterbox",
    channels: int = 1,
    range16: Rule = PERCENTILES,
    first_pixel: int = 1,
    rename: Mapping[str, str] = MappingProxyType({}),
    where: Mapping[str, Any] = MappingProxyType({}),
    limit: int = 0,
    empty: str = "keep",
    min_area: float | None = None,
    min_height: Mapping[str, float] = MappingProxyType({}),
    small: str = "drop",
    refuse: Refuse = refuse,
    stream: bool = False,
    match: bool = False,
    corrupt: tuple[str, int] | None = None,
) -> Split:
    """Load one split whole into memory, its images in order of file name; or leave these on disk.

    The same images and boxes in another layout give the same arrays, bit for bit.

    Args:
        source: a folder, or a .zip that is read in place.
        classes: names of the scored categories, in the order of the labels; by default all that
            the source has and does not mark as don't-care.
        ignore_classes: names of further categories that are neither objects nor background. Every
            category in neither is background; `truth["images"]` counts them by name in
            "background" and keeps all fields of the source.
        layout: one of `LAYOUTS` or `published.BOXES`, or "auto" to go by what is there.
        size: (H, W) of the network's input, to which images are brought by the rule `fit`, see
            `images.fit`; None if all images share one size, which is then kept.
        channels: 1 or 3. range16: how deep pixels come to 8 bits, see `images.to_uint8`.
        first_pixel: of VOC files, see `voc.listing`.
        rename: the source's name of a category -> the name it shall have here.
        where, limit: which images, see `listing.chosen` and `listing.spread`.
        empty, min_area, min_height, small: images and boxes that a protocol leaves out, see
            `places.mended`.
        refuse: called with the kind and the message of every problem that is one image's or one
            box's, which is left out if it returns; by default the first stops the loading. A box
            that overhangs its image is left as it is.
        stream: images are a `disk.Images`, of files of the size that their labels say; one that
            cannot be read, or is of another size, raises when it is asked for.
        match: `classes` are those of another set: some of them, and of `ignore_classes`, may be
            unknown here, but not all.
        corrupt: kind and severity of a corruption of the image as it is in its file, see
            `corrupt.corrupt`.

    Raises UserError for: a missing source, split, image or class; a file that is not of its layout;
    images of differing size without `size`; an image whose size is not what its label file says; a
    box that is empty, not finite or outside its image.
    """
    size = pair(size)
    if fit == "center":
        raise UserError("fit = 'center': boxes would lie outside; give letterbox or resize")
    decode = partial(
        _decode, channels=channels, range16=range16, size=size, fit=fit, corruption=corrupt
    )
    if stream and size is None:
        raise UserError(
            "data.stream: give data.common.size, (height, width) of the network's input"
        )
    read: list[_Decoded] = []
    objects, infos = [], []
    with opened(source) as root:
        if stream and not isinstance(root, Path):
            raise UserError(f"{source}: images cannot be left in a zip (data.stream); unpack it")
        listed = renamed(listing(root, split, layout, first_pixel, refuse), rename)
        listed = chosen(listed, where)
        listed = mended(listed, empty, min_area, min_height, small)
        listed = listed._replace(entries=spread(listed.entries, limit, _file_name))
        classes, ignored = roles(listed, classes, ignore_classes, match)
        look = _decoded(listed, decode, refuse)
        for one in _described(listed, size, fit, refuse) if stream else look:
            boxes, background = _objects(one, classes, ignored, listed.relative, refuse)
            height, width = one.shape
            read.append(one)
            objects.append(boxes)
            more = {"height": height, "width": width, "background": background}
            infos.append({**one.entry.info, **more})
    if not read:
        raise _none_left(listed, split)
    shapes = [one.shape for one in read]
    if size is None and len(set(shapes)) > 1:
        sizes = sorted(set(shapes))
        raise UserError(
            f"{listed.where}: images of {len(sizes)} sizes, from {sizes[0]} to {sizes[-1]} "
            "(height, width); give size = (height, width) of the network's input"
        )
    pixels, scale, offset = ([getattr(o, f) for o in read] for f in ("image", "scale", "offset"))
    split_of = partial(stack, objects=objects, infos=infos, classes=classes)
    if stream and size:
        whole = streaming.Images(
            Read([one.entry for one in read], decode), (len(read), *size, channels)
        )
        return split_of(whole, scale=np.stack(scale), offset=np.stack(offset))
    return split_of(pixels, scale=np.stack(scale), offset=np.stack(offset))


def listing(
    root: Place, split: str, layout: str, first_pixel: int = 1, refuse: Refuse = refuse
) -> Listing:
    """What the files of a split say, see `load`. Raises UserError if they name no image.

    "val" and "valid" are the same split where only one of them is there.
    """
    module = layout_of(root, layout)
    if split in SAME_SPLIT and split not in (names := module.splits(root)):
        split = SAME_SPLIT[split] if SAME_SPLIT[split] in names else split
    takes = signature(module.listing).parameters
    own = {"first_pixel": first_pixel} if "first_pixel" in takes else {}
    listed = module.listing(root, split, refuse, **own)
    if not listed.entries:
        raise UserError(f"{listed.where}: split {split!r} has no images")
    return listed


def sound(listed: Listing, split: str, refuse: Refuse = refuse) -> Listing:
    """`listed` in order of file name, less the images and boxes that `refuse` is called for: those
    that `load` would call it for. Raises UserError if no image is left.
    """
    entries = []
    for one in _decoded(listed, partial(_decode, channels=1), refuse):
        boxes = [_box(label, one.shape, listed.relative, refuse) for label in one.entry.labels]
        pairs = zip(one.entry.labels, boxes, strict=True)
        entries.append(
            one.entry._replace(labels=[label for label, box in pairs if box is not None])
        )
    if not entries:
        raise _none_left(listed, split)
    return listed._replace(entries=entries)


def shapes(listed: Listing) -> np.ndarray:
    """int [N, 2], (height, width) of the images that can be read, as their headers say."""
    found = []
    for entry in listed.entries:
        try:
            found.append(images.shape_of(entry.place.read_bytes()))
        except Exception:  # whatever a broken file leads Pillow to: `load` will name it
            continue
    return np.array(found, np.int64).reshape(-1, 2)


def layout_of(root: Place, layout: str) -> Any:
    """The module that reads `layout`, or for "auto" the one that finds splits in `root`.

    Raises UserError for an unknown layout, and if none is recognized, saying what is nearly one.
    """
    known = (*LAYOUTS, *BOXES, "auto")
    if layout not in known:
        raise UserError(f"layout = {layout!r}: {suggest(layout, known)}")
    if found := published(root, layout):
        return found
    for name in LAYOUTS if layout == "auto" else (layout,):
        module = import_module(f"tinyjax.data.layouts.{name}")
        if layout != "auto" or module.splits(root):
            return module
    for name in ("voc", "yolo"):
        if message := import_module(f"tinyjax.data.layouts.{name}").almost(root):
            raise UserError(message)
    if packed := [file for home in homes(root) for file in files(home, ".zip")]:
        raise UserError(
            f"{packed[0]}: a zip within {root}; give the inner zip itself as the source"
        )
    raise UserError(
        f"{root}: no layout that is known: COCO has annotations/*.json, YOLO a data.yaml, VOC "
        "Annotations/*.xml and ImageSets/Main/*.txt; docs/data.md shows them"
    )


def pair(size: Any) -> tuple[int, int] | None:
    """(height, width); a single number is a square's side. Raises UserError for anything else."""
    sides = (size, size) if isinstance(size, int) else size
    if sides is None:
        return None
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise UserError(f"size = {size!r}: give (height, width) in pixels, such as (256, 320)")
    return tuple(sides)


class _Decoded(NamedTuple):
    entry: Entry
    image: np.ndarray  # uint8 [H, W, C], the network's input size
    shape: tuple[int, int]  # (h, w) of the file
    scale: np.ndarray
    offset: np.ndarray


def _present(listed: Listing, refuse: Refuse) -> list[Entry]:
    """The entries whose image is there, in order of file name."""
    there: list[Entry] = []
    missing: list[Entry] = []
    for entry in listed.entries:
        (there if entry.place.is_file() else missing).append(entry)
    for entry in missing:
        many = f"{len(missing)} of {len(listed.entries)} images that {listed.where} names"
        refuse("missing image", f"{entry.place}: no such image ({many} are not there)")
    return sorted(there, key=_file_name)


def _file_name(entry: Entry) -> str:
    return str(entry.info["file_name"])


def _decoded(
    listed: Listing, decode: Callable[[Entry], "_Decoded | UserError"], refuse: Refuse
) -> Iterator["_Decoded"]:
    """The images that can be used, in order of file name, a few of them ahead."""
    for one in ahead(decode, _present(listed, refuse)):
        if isinstance(one, UserError):
            refuse("unreadable image", str(one))
        elif wrong := _other_size(one.entry, one.shape):
            refuse("other size", wrong)
        else:
            yield one


def _described(listed: Listing, size: Any, fit: str, refuse: Refuse) -> Iterator["_Decoded"]:
    """As `_decoded`, but without the pixels: sizes are what the labels say, or the files' headers
    where they say nothing.
    """
    for entry in _present(listed, refuse):
        shape = (int(entry.info.get("height") or 0), int(entry.info.get("width") or 0))
        if not all(shape):
            shape = images.shape_of(images.content(entry.place))
        yield _Decoded(entry, np.zeros(0), shape, *images.placed(shape, size, fit))


@dataclass(frozen=True)
class Read:
    """An image of a split that is left on disk, by its number."""

    entries: list[Entry]
    decode: partial

    def __call__(self, i: int) -> np.ndarray:
        one = self.decode(self.entries[i])
        if isinstance(one, UserError):
            raise one
        if wrong := _other_size(one.entry, one.shape):
            raise UserError(wrong)
        return one.image


@dataclass(frozen=True)
class Frames:
    """Samples of a split that is left on disk, see `disk.batches`: whole frames and their boxes."""

    read: Callable[[int], np.ndarray]
    arrays: dict[str, np.ndarray]  # boxes, labels, valid, ignore: [N, ...]

    def __call__(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"images": self.read(i), **{name: rows[i] for name, rows in self.arrays.items()}}


def ahead(
    work: Callable[[Given], Made], items: Iterable[Given], threads: int = 2
) -> Iterator[Made]:
    """`map(work, items)` in threads, but at most `AHEAD` items further than was asked for, so that
    what is raised over one of them does not wait for all.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:  # Pillow works outside the interpreter's lock
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(
    entry: Entry,
    channels: int,
    range16: Rule = PERCENTILES,
    size: tuple[int, int] | None = None,
    fit: str = "letterbox",
    corruption: tuple[str, int] | None = None,
) -> _Decoded | UserError:
    try:
        image = images.read(entry.place, channels, range16)
        if corruption:
            from tinyjax.data.corruptions.corrupt import (
                corrupt,  # with scipy, which nothing else here needs
            )

            image = corrupt(image, *corruption, _file_name(entry))
        height, width, _ = image.shape
        fitted, scale, offset = images.fit(image, size or (height, width), fit)
        return _Decoded(entry, fitted, (height, width), scale, offset)
    except UserError as error:
        return error


def _other_size(entry: Entry, shape: tuple[int, int]) -> str:
    height, width = shape
    said = entry.info.get("height") or height, entry.info.get("width") or width
    if said == shape:
        return ""
    return (
        f"{entry.place}: the image is {height} x {width} (height x width), but its label file says "
        f"{said[0]} x {said[1]}; its boxes would not fit"
    )


def _objects(
    one: _Decoded, classes: tuple[str, ...], ignored: frozenset[str], relative: bool, refuse: Refuse
) -> tuple[Objects, dict[str, int]]:
    """The objects of an image, and how many of each background category it holds."""
    rows, background = [], Counter[str]()
    for label in one.entry.labels:
        if label.category not in classes and label.category not in ignored:
            background[label.category] += 1
            continue
        if (box := _box(label, one.shape, relative, refuse)) is None:
            continue
        ignore_classes = label.ignore or label.category in ignored
        number = classes.index(label.category) if label.category in classes else 0
        area = np.prod(box[2:] - box[:2]) if label.area is None else label.area
        rows.append((box, number, ignore_classes, area))
    boxes, labels, ignore, area = zip(*rows, strict=True) if rows else ([], [], [], [])
    objects = Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.array(labels, np.int32),
        np.array(ignore, bool),
        np.array(area, float),
    )
    return objects, dict(background)


def _box(label: Label, shape: tuple[int, int], relative: bool, refuse: Refuse) -> np.ndarray | None:
    """float64 [4] xyxy in pixels of the file; None if it was refused."""
    box = np.array(images.in_pixels(label.box, shape) if relative else label.box, float)
    if wrong := _wrong(box, shape):
        refuse(wrong[0], f"{label.where}: {wrong[1]}")
        return None
    return box


def _none_left(listed: Listing, split: str) -> UserError:
    return UserError(f"{listed.where}: no image of split {split!r} can be used")


def _wrong(box: np.ndarray, shape: tuple[int, int]) -> tuple[str, str] | None:
    """Kind and description of what makes a box unusable."""
    x1, y1, x2, y2 = box.tolist()
    height, width = shape
    text = f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}"
    if not np.isfinite(box).all():
        return "box not finite", f"box {text} is not finite; give numbers"
    if x2 <= x1 or y2 <= y1:
        return "empty box", f"box {text} is empty; width and height must be above 0"
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return "box outside", f"box {text} lies outside its image of {width} x {height} px"
    return None
