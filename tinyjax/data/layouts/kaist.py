"""The KAIST multispectral pedestrian set, two cameras through one beam splitter.

    images/set00/V000/visible/I00000.jpg, images/set00/V000/lwir/I00000.jpg
    imageSets/<list>.txt of lines such as set00/V000/I00000: a split for each camera, lwir/<list>

and labels in one or more of `LABELS`: xml files, or text files "% bbGt version=3" of Piotr's
toolbox with lines of label, left, top, width, height, occluded, four of the visible part, ignore,
angle. Those of `annotations_paired` are one a camera, all others are shared by both.

Without lists the splits are train, set00 to set05, and test, the rest, every frame of them.

Source: Hwang et al., CVPR 2015; the layout is that of public loaders (sejong-rcv/MLPD,
SoonminHwang/rgbt-ped-detection), the set itself was not at hand. Not verified: whether corners
count from 0 or 1 (they are used as they are written, as in those loaders), and which folder of
labels holds which frames.
"""

from xml.etree import ElementTree

from tinyjax.data.images import Place, content
from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    Refuse,
    files,
    folders,
    image_files,
    no_split,
    stem,
    text,
)
from tinyjax.errors import UserError

CAMERAS = ("visible", "lwir")
LABELS = (  # a frame's are those of the first of these that has it: corrected ones come first
    "annotations_paired",  # Zhang et al., ICCV 2019
    "annotations-xml-new-sanitized",  # Li et al., BMVC 2018, for training
    "annotations-xml-15",
    "annotations-xml-new",  # Liu et al., BMVC 2016, for testing
    "annotations-xml",
    "annotations",
)
CATEGORIES = ("person", "cyclist", "people", "person?")
TRAINING = ("set00", "set01", "set02", "set03", "set04", "set05")


def splits(home: Place) -> list[str]:
    """<camera>/<list> for every list, or <camera>/train and <camera>/test."""
    names = [stem(file) for file in files(home / "imageSets", ".txt")]
    if not names:
        there = {folder.name in TRAINING for folder in folders(home / "images")}
        names = [name for name, kind in (("train", True), ("test", False)) if kind in there]
    return [f"{camera}/{name}" for camera in CAMERAS for name in names]


def listing(home: Place, split: str, refuse: Refuse) -> Listing:
    """The split of one camera. Frames are named set00/V000/lwir/I00000.jpg.

    Raises UserError for an unknown split. Refused, one by one: a line that names no frame, a frame
    without labels, labels that cannot be read.
    """
    camera, _, name = split.partition("/")
    if split not in splits(home):
        raise no_split(home, split, splits(home))
    file = home / "imageSets" / f"{name}.txt"
    where = file if file.is_file() else home / "images"
    frames = text(file).split() if file.is_file() else _all(home, camera, name == "train")
    labels = [folder for folder in LABELS if (home / folder).is_dir()]
    entries = []
    for frame in frames:
        video, _, number = frame.rpartition("/")
        if video.count("/") != 1 or ".." in frame:
            refuse("bad line", f"{where}: {frame!r}; give frames such as set00/V000/I00000")
            continue
        found = _labels_of(home, labels, video, camera, number)
        if found is None:
            refuse("missing label file", f"{where}: {frame}: no labels in {labels or LABELS}")
            continue
        try:
            rows = _xml(found) if found.name.endswith(".xml") else _text(found)
        except UserError as error:
            refuse("bad label file", str(error))
            continue
        png = f"{video}/{camera}/{number}.png"
        path = png if (home / "images" / png).is_file() else f"{png.removesuffix('png')}jpg"
        entries.append(Entry(home / "images" / path, {"file_name": path}, rows))
    more = {label.category for entry in entries for label in entry.labels} - {*CATEGORIES}
    return Listing(str(where), entries, (*CATEGORIES, *sorted(more)))


def _all(home: Place, camera: str, training: bool) -> list[str]:
    return [
        f"{one.name}/{video.name}/{stem(image)}"
        for one in folders(home / "images")
        if (one.name in TRAINING) == training
        for video in folders(one)
        for image in image_files(video / camera)
    ]


def _labels_of(
    home: Place, labels: list[str], video: str, camera: str, number: str
) -> Place | None:
    for folder in labels:
        at = home / folder / video
        for file in (at / f"{number}.xml", at / f"{number}.txt", at / camera / f"{number}.txt"):
            if file.is_file():
                return file
    return None


def _xml(file: Place) -> list[Label]:
    """Labels of an xml, whose <bndbox> has x, y, w, h or, in a later conversion, VOC's corners."""
    try:
        tree = ElementTree.fromstring(content(file))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{file}: not XML ({error})") from error
    rows = []
    for number, part in enumerate(tree.iter("object"), start=1):
        values = {field.tag: field.text or "" for field in part.iterfind("bndbox/*")}
        try:
            if "w" in values:
                x, y, w, h = (float(values[tag]) for tag in "xywh")
                box = (x, y, x + w, y + h)
            else:
                x1, y1, x2, y2 = (float(values[tag]) for tag in ("xmin", "ymin", "xmax", "ymax"))
                box = (x1, y1, x2, y2)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{file}: object {number}: <bndbox>: {error}; give x, y, w, h"
            ) from error
        ignore = (part.findtext("difficult") or "0").strip() == "1"
        rows.append(Label(f"{file}: object {number}", _name(part.findtext("name")), box, ignore))
    return rows


def _text(file: Place) -> list[Label]:
    rows = []
    for number, line in enumerate(text(file).splitlines(), start=1):
        name, *values = line.split() or ["%"]
        if name.startswith("%"):
            continue
        try:
            x, y, w, h = map(float, values[:4])
        except ValueError as error:
            raise UserError(
                f"{file}: line {number}: {line!r}; give label, left, top, width, height"
            ) from error
        ignore = len(values) > 9 and values[9] == "1"
        rows.append(Label(f"{file}: line {number}", _name(name), (x, y, x + w, y + h), ignore))
    return rows


def _name(name: str | None) -> str:
    """In small letters; `person?a` stands for `person?` in some files, as no name does."""
    plain = (name or "person?").strip().lower()
    return "person?" if plain.startswith("person?") else plain
