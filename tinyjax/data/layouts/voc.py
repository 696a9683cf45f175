"""The Pascal VOC layout: one xml file per image.

    JPEGImages/<name>.jpg, Annotations/<name>.xml, ImageSets/Main/<split>.txt listing the names
    images/<name>.jpg, annotations/<name>.xml and the same lists, as on Kaggle

    <split>/<name>.jpg and <split>/<name>.xml, as Roboflow and labelImg write it

Images and xml files may be in subfolders, the same for both. Without lists or folders of splits,
all images are the split "all".

Format: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010, and its
development kit.
"""

import re
import unicodedata
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tinyjax.data.images import SUFFIXES
from tinyjax.data.layouts.first_pixel import infer_first_pixels, recognize_tool
from tinyjax.data.layouts.listing import (
    UNSPLIT,
    Entry,
    Label,
    Listing,
    OnError,
    candidate_roots,
    join_inside,
    list_files,
    list_folders,
    path_key,
    read_text,
    split_command,
    stem,
    unknown_split,
    walk_files,
    warn_unread,
)
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError

LISTS = "ImageSets/Main"
SPLITS = ("train", "val", "valid", "test")  # folders whose files may all be in subfolders
PRESENCE = re.compile(r"\s+(-1|0|1)$")  # of a class in an image, in the devkit's per-class lists


class Annotation(NamedTuple):
    """The content of an xml file."""

    size: dict[str, int]
    labels: list[Label]  # corners as written
    tool: str  # see `first_pixel.recognize_tool`


class _SplitFiles(NamedTuple):
    """The files of a split."""

    rows: list[tuple[str, AnyPath, AnyPath | None]]  # file name, image, xml
    source: str  # the file or folder that lists them
    all_xmls: list[AnyPath]  # of all splits
    flat: bool  # the xml files are next to the images, not in the devkit's folders


def list_splits(root: AnyPath) -> list[str]:
    """The names of the splits that exist."""
    return find_set(root)[1]


def find_set(root: AnyPath) -> tuple[AnyPath, list[str]]:
    """The folder of the set, and the names of its splits; `root` and [] if there are none."""
    for data_dir in candidate_roots(root):
        if files := list_files(data_dir / LISTS, ".txt"):
            images = _by_stem(image_and_xml_folder(data_dir)[0], SUFFIXES)
            lists = {stem(f): f for f in files}
            names = [n for n, f in lists.items() if not _is_class_list(n, f, lists, images)]
            return data_dir, names
        if flat := [folder.name for folder in list_folders(data_dir) if _is_split(folder)]:
            return data_dir, flat
    unsplit = _unsplit_folder(root)
    return (unsplit, [UNSPLIT]) if unsplit else (root, [])


def has_labels(root: AnyPath) -> bool:
    """Return whether there are xml files for the images of a split."""
    rows = (row for split in list_splits(root) for row in _split_files(root, split).rows)
    return any(xml and xml.is_file() for *_, xml in rows)


def explain_mismatch(root: AnyPath) -> str:
    """Why a set that resembles VOC cannot be read as VOC; "" if it does not resemble VOC."""
    data_dir, splits = find_set(root)
    if splits != [UNSPLIT]:
        return ""
    _, xml_folder = image_and_xml_folder(data_dir)
    return (
        f"{xml_folder}: VOC files without splits; write the names of the images, one per line, "
        f"into {data_dir / LISTS}/train.txt and val.txt, or run {split_command(root)}"
    )


def read_listing(
    root: AnyPath, split: str, on_error: OnError, first_pixel: int | None = None
) -> Listing:
    """Read a split's xml files; `difficult` objects are ignored.

    The layout has no list of categories; they are collected from all splits and sorted by name.

    first_pixel: the number of the first row and column. The challenge counts from 1, and `xmax` and
    `ymax` are inside the object: box = xmin - 1, ymin - 1, xmax, ymax. 0 is for tools that
    count from 0; their corners are used as written. None: by evidence from the files of all splits,
    see `first_pixel.infer_first_pixel`; the listing's notices name the rule.

    Raises UserError for an unknown split. Reported to `on_error`: an image without xml, a file
    that is not a VOC xml.
    """
    if first_pixel not in (None, 0, 1):
        raise UserError(
            f"first_pixel = {first_pixel!r}: VOC files count pixels from 1, or from 0; by default "
            "the rule is inferred from the files"
        )
    files = _split_files(root, split)
    # Files of other splits only add categories and evidence.
    listed = (xml for *_, xml in files.rows if xml and xml.is_file())
    xmls = {str(xml): xml for xml in (*files.all_xmls, *listed)}
    annotations = {name: read_xml(xml) for name, xml in xmls.items()}
    valid = [a for a in annotations.values() if isinstance(a, Annotation)]
    corners = [(a.tool, [label.box for label in a.labels]) for a in valid]
    first_pixels, notices = infer_first_pixels(corners, files.flat)
    if first_pixel is not None:
        first_pixels, notices = dict.fromkeys(first_pixels, first_pixel), ()
    entries = []
    for file_name, image, xml in files.rows:
        if xml is None:
            entries.append(Entry(image, {"file_name": file_name}, []))
            continue
        if str(xml) not in annotations:
            on_error("missing label file", f"{xml}: no such file; it is listed in {files.source}")
            continue
        annotation = annotations[str(xml)]
        if not isinstance(annotation, UserError):
            annotation = _count_from_zero(annotation, first_pixels[annotation.tool])
        if isinstance(annotation, UserError):
            on_error("bad label file", str(annotation))
            continue
        info = {"file_name": file_name, **annotation.size}
        entries.append(Entry(image, info, annotation.labels))
    categories = {label.category for annotation in valid for label in annotation.labels}
    return Listing(files.source, entries, tuple(sorted(categories)), notices=notices)


def _split_files(root: AnyPath, split: str) -> _SplitFiles:
    """The files of a split. Without lists, an image without objects needs no xml.

    Raises UserError for an unknown split.
    """
    for data_dir in candidate_roots(root):
        names = data_dir / LISTS / f"{split}.txt"
        if names.is_file():
            return _listed_files(data_dir, names)
        folder = data_dir / split
        if _is_split(folder):
            all_xmls = [xml for d in list_folders(data_dir) for _, xml in walk_files(d, ".xml")]
            return _SplitFiles(_folder_rows(folder, folder), str(folder), all_xmls, flat=True)
    if split == UNSPLIT and (unsplit := _unsplit_folder(root)):
        image_folder, xml_folder = image_and_xml_folder(unsplit)
        xmls = [xml for _, xml in walk_files(xml_folder, ".xml")]
        flat = str(xml_folder) in (str(unsplit), str(image_folder))
        return _SplitFiles(_folder_rows(image_folder, xml_folder), str(xml_folder), xmls, flat)
    if message := explain_mismatch(root):
        raise UserError(message)
    raise unknown_split(root, split, list_splits(root))


def _listed_files(data_dir: AnyPath, names: AnyPath) -> _SplitFiles:
    """The files of a list in `LISTS`."""
    image_folder, xml_folder = image_and_xml_folder(data_dir)
    images, xmls = _by_stem(image_folder, SUFFIXES), _by_stem(xml_folder, ".xml")
    rows: list[tuple[str, AnyPath, AnyPath | None]] = []
    for name in dict.fromkeys(name for name, _ in _read_list(names, images)):
        file_name, image = images.get(name) or (
            f"{name}.jpg",
            join_inside(image_folder, f"{name}.jpg", str(names)),
        )
        _, xml = xmls.get(name) or ("", join_inside(xml_folder, f"{name}.xml", str(names)))
        rows.append((file_name, image, xml))
    all_xmls = [xml for _, xml in xmls.values()]
    return _SplitFiles(rows, str(names), all_xmls, flat=str(xml_folder) == str(data_dir))


def _folder_rows(
    image_folder: AnyPath, xml_folder: AnyPath
) -> list[tuple[str, AnyPath, AnyPath | None]]:
    """(file name, image, xml) of the images in a folder, then of xml files without image."""
    warn_unread(image_folder)
    images, xmls = _by_stem(image_folder, SUFFIXES), _by_stem(xml_folder, ".xml")
    rows = [
        (path, image, xmls[name][1] if name in xmls else None)
        for path, image in walk_files(image_folder, SUFFIXES)
        for name in [path_key(path)]
    ]
    without_image = sorted(xmls.keys() - images.keys())
    return rows + [(f"{n}.jpg", image_folder / f"{n}.jpg", xmls[n][1]) for n in without_image]


def _is_split(folder: AnyPath) -> bool:
    """Whether a folder has images and xml files; if it is named as a split, also in subfolders."""
    search = walk_files if folder.name in SPLITS else list_files
    return bool(search(folder, ".xml")) and bool(search(folder, SUFFIXES))


def _unsplit_folder(root: AnyPath) -> AnyPath | None:
    """The first folder of a set whose images have xml files, for a set without splits."""
    for data_dir in candidate_roots(root):
        image_folder, xml_folder = image_and_xml_folder(data_dir)
        xmls = _by_stem(xml_folder, ".xml")
        if xmls and not xmls.keys().isdisjoint(_by_stem(image_folder, SUFFIXES)):
            return data_dir
    return None


def image_and_xml_folder(data_dir: AnyPath) -> tuple[AnyPath, AnyPath]:
    """The folders of the images and of the xml files: `data_dir` if no folder has a usual name."""
    images, xmls = (
        next((folder for name in names if (folder := data_dir / name).is_dir()), data_dir)
        for names in (("JPEGImages", "images"), ("Annotations", "annotations"))
    )
    return images, xmls


def _by_stem(folder: AnyPath, suffix: Any) -> dict[str, tuple[str, AnyPath]]:
    """`path_key` of the path from `folder` -> (path, file) of the files with this suffix."""
    return {path_key(path): (path, file) for path, file in walk_files(folder, suffix)}


def _read_list(file: AnyPath, images: Any) -> list[tuple[str, bool]]:
    """(name, whether a presence number follows) of a list's lines; names may contain spaces, and
    the suffix of the image is left out.
    """
    rows = []
    text = unicodedata.normalize("NFC", read_text(file))  # as in `path_key`
    for line in filter(None, map(str.strip, text.splitlines())):
        name = line if line in images else PRESENCE.sub("", line)
        has_number = name != line
        if name not in images and name.lower().endswith(SUFFIXES):
            name = path_key(name)
        rows.append((name, has_number))
    return rows


def _is_class_list(name: str, file: AnyPath, lists: Any, images: Any) -> bool:
    """Return whether a list is the devkit's <class>_<split>.txt and not a split."""
    class_name, _, split = name.rpartition("_")
    numbered = (has_number for _, has_number in _read_list(file, images))
    return bool(class_name) and split in lists and all(numbered)


def read_xml(file: AnyPath) -> Annotation | UserError:
    """The content of a VOC xml with its corners as written, or an error if it is invalid."""
    try:
        tree = _parse(file)
        size = {
            side: int(float(value))
            for side in ("height", "width")
            if (value := tree.findtext(f"size/{side}")) and float(value) > 0
        }
        nodes = enumerate(tree.iter("object"), start=1)
        labels = [_label(file, number, node) for number, node in nodes]
        database = (tree.findtext("source/database") or "").strip()
        return Annotation(size, labels, recognize_tool(database))
    except UserError as error:
        return error
    except (ValueError, OverflowError) as error:
        return UserError(f"{file}: size: {error}; give numbers")


def _parse(file: AnyPath) -> ElementTree.Element:
    try:
        tree = ElementTree.fromstring(read_bytes(file))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{file}: not XML ({error})") from error
    if tree.tag != "annotation":
        raise UserError(f"{file}: not a VOC file: its root is <{tree.tag}>, not <annotation>")
    return tree


def _name(file: AnyPath, node: ElementTree.Element) -> str:
    if not (name := (node.findtext("name") or "").strip()):
        raise UserError(f"{file}: an <object> has no <name>")
    return name


def _label(file: AnyPath, number: int, node: ElementTree.Element) -> Label:
    """An object with its corners as written."""
    source = f"{file}: object {number}"
    try:
        x1, y1, x2, y2 = (_corner(node, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as error:
        raise UserError(f"{source}: <bndbox>: {error}; give xmin, ymin, xmax, ymax") from error
    difficult = (node.findtext("difficult") or "0").strip().lower()
    ignore = difficult not in ("0", "false", "unspecified")
    return Label(source, _name(file, node), (x1, y1, x2, y2), ignore)


def _corner(node: ElementTree.Element, name: str) -> float:
    if not (text := (node.findtext(f"bndbox/{name}") or "").strip()):
        raise ValueError(f"no {name}")
    return float(text)


def _count_from_zero(annotation: Annotation, first_pixel: int) -> Annotation | UserError:
    """The annotation with boxes in continuous pixels, or an error if a corner is below
    `first_pixel`.
    """
    labels = []
    for label in annotation.labels:
        x1, y1, x2, y2 = label.box
        if first_pixel and min(x1, y1) < 1:
            return UserError(
                f"{label.source}: xmin {x1:g}, ymin {y1:g}: this file counts pixels from 0; "
                "give first_pixel=0"
            )
        labels.append(label._replace(box=(x1 - first_pixel, y1 - first_pixel, x2, y2)))
    return annotation._replace(labels=labels)
