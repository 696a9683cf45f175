"""The Pascal VOC layout: an xml for every image.

    JPEGImages/<name>.jpg, Annotations/<name>.xml, ImageSets/Main/<split>.txt listing the names
    images/<name>.jpg, annotations/<name>.xml and the same lists, as on Kaggle

    <split>/<name>.jpg and <split>/<name>.xml, as Roboflow and labelImg leave it

Format: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010, and its
development kit.
"""

import re
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tinyjax.data.images import Place, content
from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    Refuse,
    files,
    folders,
    homes,
    image_files,
    inside,
    no_split,
    stem,
    text,
)
from tinyjax.errors import UserError

SETS = "ImageSets/Main"
NUMBER = re.compile(r"\s+(-1|0|1)$")  # is it there? the devkit's lists of a class say so per image


class _Read(NamedTuple):
    """What an xml says."""

    size: dict[str, int]
    labels: list[Label]


def splits(root: Place) -> list[str]:
    """The names of the splits that are there."""
    for home in homes(root):
        if lists := files(home / SETS, ".txt"):
            pictures = {stem(f) for f in image_files(_folders(home)[0])}
            names = {stem(f): f for f in lists}
            return [n for n, f in names.items() if not _of_class(n, f, names, pictures)]
        if found := [d.name for d in folders(home) if files(d, ".xml") and image_files(d)]:
            return found
    return []


def almost(root: Place) -> str:
    """What keeps a set that looks like VOC from being one; "" for all else."""
    for home in homes(root):
        pictures, xmls = _folders(home)
        if files(xmls, ".xml") and image_files(pictures) and not files(home / SETS, ".txt"):
            return (
                f"{xmls}: VOC files without splits; write the names of the images, one a line, "
                f"into {home / SETS}/train.txt and val.txt"
            )
    return ""


def listing(root: Place, split: str, refuse: Refuse, first_pixel: int = 1) -> Listing:
    """The split as its xml files have it; `difficult` objects are don't-care.

    first_pixel: the number of the left and uppermost pixel. The challenge counts from 1 and its
    `xmax` belongs to the object: box = xmin - 1, ymin - 1, xmax, ymax. 0 for tools that write
    corners from 0.

    The layout has no list of categories: they are those of all splits, in order of name.

    Raises UserError for an unknown split. Refused, one by one: an image without xml, a file that
    is no VOC xml.
    """
    if first_pixel not in (0, 1):
        raise UserError(f"first_pixel = {first_pixel}: VOC files count pixels from 1, or from 0")
    pairs, where, everything = _pairs(root, split)
    read = {str(xml): read_xml(xml, first_pixel) for xml in everything}  # of others: names only
    entries = []
    for image, xml in pairs:
        if xml is None:
            entries.append(Entry(image, {"file_name": image.name}, []))
        elif not xml.is_file():
            refuse("missing label file", f"{xml}: no such file; {where} names it")
        elif isinstance(one := read.get(str(xml)) or read_xml(xml, first_pixel), UserError):
            refuse("bad label file", str(one))
        else:
            entries.append(Entry(image, {"file_name": image.name, **one.size}, one.labels))
    found = [one for one in read.values() if isinstance(one, _Read)]
    return Listing(where, entries, tuple(sorted({x.category for one in found for x in one.labels})))


def _pairs(root: Place, split: str) -> tuple[list[tuple[Place, Place | None]], str, list[Place]]:
    """(image, xml) of a split, the place that lists them, and every xml of the set. In the flat
    layout an image without objects needs no xml.
    """
    pairs: list[tuple[Place, Place | None]]
    for home in homes(root):
        names = home / SETS / f"{split}.txt"
        if names.is_file():
            pictures, annotations = _folders(home)
            images = {stem(f): f for f in image_files(pictures)}
            everything = {stem(f): f for f in files(annotations, ".xml")}
            pairs = [
                (
                    images.get(name) or inside(pictures, f"{name}.jpg", str(names)),
                    everything.get(name) or inside(annotations, f"{name}.xml", str(names)),
                )
                for name, _ in _lines(names, images)
            ]
            return pairs, str(names), list(everything.values())
        folder = home / split
        if (there := files(folder, ".xml")) and (here := image_files(folder)):
            xmls = {stem(x): x for x in there}
            flat = [xml for d in folders(home) for xml in files(d, ".xml")]
            pairs = [(picture, xmls.get(stem(picture))) for picture in here]
            lone = xmls.keys() - {stem(picture) for picture in here}
            pairs += [(folder / f"{name}.jpg", xmls[name]) for name in sorted(lone)]
            return pairs, str(folder), flat
    raise UserError(almost(root)) if almost(root) else no_split(root, split, splits(root))


def _folders(home: Place) -> tuple[Place, Place]:
    """The folders of the images and of the xml files, each by the name that is there."""
    pictures, xmls = (
        next((home / name for name in names if (home / name).is_dir()), home / names[0])
        for names in (("JPEGImages", "images"), ("Annotations", "annotations"))
    )
    return pictures, xmls


def _lines(names: Place, images: Any) -> list[tuple[str, bool]]:
    """The names in a list, which may hold spaces, and whether a number stood behind each."""
    found = []
    for line in filter(None, map(str.strip, text(names).splitlines())):
        name = line if line in images else NUMBER.sub("", line)
        found.append((name, name != line))
    return found


def _of_class(name: str, file: Place, names: Any, images: Any) -> bool:
    """Whether a list is not a split but the devkit's <class>_<split>.txt."""
    kind, _, split = name.rpartition("_")
    numbered = (number for _, number in _lines(file, images))
    return bool(kind) and split in names and all(numbered)


def read_xml(file: Place, first_pixel: int) -> _Read | UserError:
    try:
        tree = _parse(file)
        size = {
            side: int(float(text))
            for side in ("height", "width")
            if (text := tree.findtext(f"size/{side}")) and float(text) > 0
        }
        parts = enumerate(tree.iter("object"), start=1)
        return _Read(size, [_label(file, number, part, first_pixel) for number, part in parts])
    except UserError as error:
        return error
    except ValueError as error:
        return UserError(f"{file}: size: {error}; give numbers")


def _parse(file: Place) -> ElementTree.Element:
    try:
        tree = ElementTree.fromstring(content(file))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{file}: not XML ({error})") from error
    if tree.tag != "annotation":
        raise UserError(f"{file}: not a VOC file: its root is <{tree.tag}>, not <annotation>")
    return tree


def _name(file: Place, part: ElementTree.Element) -> str:
    if not (name := (part.findtext("name") or "").strip()):
        raise UserError(f"{file}: an <object> has no <name>")
    return name


def _label(file: Place, number: int, part: ElementTree.Element, first_pixel: int) -> Label:
    where = f"{file}: object {number}"
    try:
        x1, y1, x2, y2 = (
            float(part.findtext(f"bndbox/{corner}") or "nothing")
            for corner in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError as error:
        raise UserError(f"{where}: <bndbox>: {error}; give xmin, ymin, xmax, ymax") from error
    ignore = (part.findtext("difficult") or "0").strip() not in ("0", "Unspecified")
    if min(x1, y1) < first_pixel:
        raise UserError(
            f"{where}: xmin {x1:g}, ymin {y1:g}: this file counts pixels from 0; give first_pixel=0"
        )
    box = (x1 - first_pixel, y1 - first_pixel, x2, y2)
    return Label(where, _name(file, part), box, ignore)
