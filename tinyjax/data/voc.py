"""The Pascal VOC layout: an xml for every image.

    JPEGImages/<name>.jpg, Annotations/<name>.xml, ImageSets/Main/<split>.txt listing the names

    <split>/<name>.jpg and <split>/<name>.xml, as Roboflow and labelImg leave it

Format: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010, and its
development kit.
"""

from xml.etree import ElementTree

from tinyjax.data.images import Place, content
from tinyjax.data.listing import (
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


def splits(root: Place) -> list[str]:
    """The names of the splits that are there."""
    for home in homes(root):
        if (home / SETS).is_dir():
            return sorted(stem(f) for f in (home / SETS).iterdir() if f.name.endswith(".txt"))
        if found := [d.name for d in folders(home) if files(d, ".xml")]:
            return found
    return []


def listing(root: Place, split: str, refuse: Refuse, first_pixel: int = 1) -> Listing:
    """The split as its xml files have it; `difficult` objects are don't-care.

    first_pixel: the number of the left and uppermost pixel. The challenge counts from 1 and its
    `xmax` belongs to the object: box = xmin - 1, ymin - 1, xmax, ymax. 0 for tools that write
    corners from 0.

    Raises UserError for an unknown split. Refused, one by one: an image without xml, a file that
    is no VOC xml.
    """
    if first_pixel not in (0, 1):
        raise UserError(f"first_pixel = {first_pixel}: VOC files count pixels from 1, or from 0")
    pairs, where, everything = _pairs(root, split)
    entries = []
    for image, xml in pairs:
        if xml is None:
            entries.append(Entry(image, {"file_name": image.name}, []))
            continue
        if not xml.is_file():
            refuse("missing label file", f"{xml}: no such file; {where} names it")
            continue
        try:
            tree = _parse(xml)
            size = {
                side: int(float(text))
                for side in ("height", "width")
                if (text := tree.findtext(f"size/{side}")) and float(text) > 0
            }
            labels = [
                _label(xml, number, part, first_pixel)
                for number, part in enumerate(tree.iter("object"), start=1)
            ]
        except UserError as error:
            refuse("bad label file", str(error))
            continue
        except ValueError as error:
            refuse("bad label file", f"{xml}: size: {error}; give numbers")
            continue
        entries.append(Entry(image, {"file_name": image.name, **size}, labels))
    return Listing(where, entries, _categories(everything, refuse))


def _pairs(root: Place, split: str) -> tuple[list[tuple[Place, Place | None]], str, list[Place]]:
    """(image, xml) of a split, the place that lists them, and every xml of the set. In the flat
    layout an image without objects needs no xml.
    """
    pairs: list[tuple[Place, Place | None]]
    for home in homes(root):
        names = home / SETS / f"{split}.txt"
        if names.is_file():
            # A line may end in a number: VOC's own lists say so per class.
            listed = [line.split()[0] for line in text(names).splitlines() if line.split()]
            images = {stem(f): f for f in image_files(home / "JPEGImages")}
            pairs = [
                (
                    images.get(name, inside(home / "JPEGImages", f"{name}.jpg", str(names))),
                    inside(home / "Annotations", f"{name}.xml", str(names)),
                )
                for name in listed
            ]
            return pairs, str(names), files(home / "Annotations", ".xml")
        folder = home / split
        if folder.is_dir() and (there := files(folder, ".xml")):
            xmls, pictures = {stem(x): x for x in there}, image_files(folder)
            everything = [xml for d in folders(home) for xml in files(d, ".xml")]
            pairs = [(picture, xmls.get(stem(picture))) for picture in pictures]
            lone = xmls.keys() - {stem(picture) for picture in pictures}
            pairs += [(folder / f"{name}.jpg", xmls[name]) for name in sorted(lone)]
            return pairs, str(folder), everything
    raise no_split(root, split, splits(root))


def _categories(xmls: list[Place], refuse: Refuse) -> tuple[str, ...]:
    """Of all splits, in order of name: the layout has no list of them."""
    names = set()
    for file in xmls:
        try:
            names |= {_name(file, part) for part in _parse(file).iter("object")}
        except UserError as error:
            refuse("bad label file", str(error))
    return tuple(sorted(names))


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
