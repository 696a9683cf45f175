"""The KAIST multispectral pedestrian set: two cameras behind one beam splitter.

    images/set00/V000/visible/I00000.jpg, images/set00/V000/lwir/I00000.jpg
    imageSets/<list>.txt with lines such as set00/V000/I00000: a split per camera, lwir/<list>

Labels are in one or more of `LABEL_FOLDERS`: xml files, or text files "% bbGt version=3" of Piotr's
toolbox with lines of label, left, top, width, height, occluded, four of the visible part, ignore,
angle. Those of `annotations_paired` are per camera, all others are shared by both.

Without lists the splits are train (all frames of set00 to set05) and test (all other frames).

Source: Hwang et al., CVPR 2015. The layout is that of public loaders (sejong-rcv/MLPD,
SoonminHwang/rgbt-ped-detection); the set itself was not available. Not verified: whether corners
count from 0 or 1 (they are used as written, as in those loaders), and which label folder has which
frames.
"""

from xml.etree import ElementTree

from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    OnError,
    list_files,
    list_folders,
    list_images,
    read_text,
    stem,
    unknown_split,
)
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError

CAMERAS = ("visible", "lwir")
LABEL_FOLDERS = (  # the first one with the frame is read; corrected labels first
    "annotations_paired",  # Zhang et al., ICCV 2019
    "annotations-xml-new-sanitized",  # Li et al., BMVC 2018, for training
    "annotations-xml-15",
    "annotations-xml-new",  # Liu et al., BMVC 2016, for testing
    "annotations-xml",
    "annotations",
)
CATEGORIES = ("person", "cyclist", "people", "person?")
TRAINING_SETS = ("set00", "set01", "set02", "set03", "set04", "set05")


def list_splits(data_dir: AnyPath) -> list[str]:
    """<camera>/<list> for each list; without lists <camera>/train and <camera>/test."""
    names = [stem(file) for file in list_files(data_dir / "imageSets", ".txt")]
    if not names:
        is_training = {folder.name in TRAINING_SETS for folder in list_folders(data_dir / "images")}
        names = [name for name, value in (("train", True), ("test", False)) if value in is_training]
    return [f"{camera}/{name}" for camera in CAMERAS for name in names]


def read_listing(data_dir: AnyPath, split: str, on_error: OnError) -> Listing:
    """Read a split of one camera. File names have the form set00/V000/lwir/I00000.jpg.

    Raises UserError for an unknown split. Reported to `on_error`: a line that is not a frame, a
    frame without labels, labels that cannot be read.
    """
    camera, _, name = split.partition("/")
    if split not in list_splits(data_dir):
        raise unknown_split(data_dir, split, list_splits(data_dir))
    file = data_dir / "imageSets" / f"{name}.txt"
    source = file if file.is_file() else data_dir / "images"
    if file.is_file():
        frames = read_text(file).split()
    else:
        frames = _all_frames(data_dir, camera, name == "train")
    folders = [folder for folder in LABEL_FOLDERS if (data_dir / folder).is_dir()]
    entries = []
    for frame in frames:
        video, _, number = frame.rpartition("/")
        if video.count("/") != 1 or ".." in frame:
            on_error("bad line", f"{source}: {frame!r}; give frames such as set00/V000/I00000")
            continue
        label_file = _label_file(data_dir, folders, video, camera, number)
        if label_file is None:
            message = f"{source}: {frame}: no labels in {folders or LABEL_FOLDERS}"
            on_error("missing label file", message)
            continue
        try:
            read_labels = _read_xml if label_file.name.endswith(".xml") else _read_bbgt
            labels = read_labels(label_file)
        except UserError as error:
            on_error("bad label file", str(error))
            continue
        png = f"{video}/{camera}/{number}.png"
        path = png if (data_dir / "images" / png).is_file() else f"{png.removesuffix('png')}jpg"
        entries.append(Entry(data_dir / "images" / path, {"file_name": path}, labels))
    others = {label.category for entry in entries for label in entry.labels} - {*CATEGORIES}
    return Listing(str(source), entries, (*CATEGORIES, *sorted(others)))


def _all_frames(data_dir: AnyPath, camera: str, training: bool) -> list[str]:
    return [
        f"{folder.name}/{video.name}/{stem(image)}"
        for folder in list_folders(data_dir / "images")
        if (folder.name in TRAINING_SETS) == training
        for video in list_folders(folder)
        for image in list_images(video / camera)
    ]


def _label_file(
    data_dir: AnyPath, folders: list[str], video: str, camera: str, number: str
) -> AnyPath | None:
    for name in folders:
        folder = data_dir / name / video
        for file in (
            folder / f"{number}.xml",
            folder / f"{number}.txt",
            folder / camera / f"{number}.txt",
        ):
            if file.is_file():
                return file
    return None


def _read_xml(file: AnyPath) -> list[Label]:
    """Labels of an xml, whose <bndbox> has x, y, w, h or, in a later conversion, VOC's corners."""
    try:
        tree = ElementTree.fromstring(read_bytes(file))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{file}: not XML ({error})") from error
    labels = []
    for number, node in enumerate(tree.iter("object"), start=1):
        values = {field.tag: field.text or "" for field in node.iterfind("bndbox/*")}
        source = f"{file}: object {number}"
        try:
            if "w" in values:
                x, y, w, h = (float(values[tag]) for tag in "xywh")
                box = (x, y, x + w, y + h)
            else:
                x1, y1, x2, y2 = (float(values[tag]) for tag in ("xmin", "ymin", "xmax", "ymax"))
                box = (x1, y1, x2, y2)
        except (KeyError, ValueError) as error:
            raise UserError(f"{source}: <bndbox>: {error}; give x, y, w, h") from error
        ignore = (node.findtext("difficult") or "0").strip() == "1"
        labels.append(Label(source, _category(node.findtext("name")), box, ignore))
    return labels


def _read_bbgt(file: AnyPath) -> list[Label]:
    """Labels of a bbGt text file of Piotr's toolbox."""
    labels = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name, *values = line.split() or ["%"]
        if name.startswith("%"):
            continue
        source = f"{file}: line {number}"
        try:
            x, y, w, h = map(float, values[:4])
        except ValueError as error:
            raise UserError(f"{source}: {line!r}; give label, left, top, width, height") from error
        ignore = len(values) > 9 and values[9] == "1"
        labels.append(Label(source, _category(name), (x, y, x + w, y + h), ignore))
    return labels


def _category(name: str | None) -> str:
    """The name in lower case; no name, or `person?a` as in some files, means `person?`."""
    category = (name or "person?").strip().lower()
    return "person?" if category.startswith("person?") else category
