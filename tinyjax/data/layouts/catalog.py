"""Published data sets: the paths of images and labels in their unpacked archives, counts, terms of
use, and known issues. `published` reads the sets.

Counts and terms are from the sets' own pages; those marked "not verified" are from several public
loaders, which agree. Nothing is downloaded, and no set is part of this project.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class SplitFiles(NamedTuple):
    """The files of a split, relative to the set's folder. <folder>/*.jpg is a folder of jpgs."""

    paths: tuple[str, ...]  # alternative sources of the split, in order of preference
    num_images: int = 0  # as published; 0: unknown, or sources disagree
    requires: tuple[str, ...] = ()  # further paths that must exist


class PublishedSet(NamedTuple):
    """A published set."""

    title: str
    layout: str  # "voc", "coco", "list" (of images, for classification), or "special"
    folder: str  # the folder that the archive unpacks to
    archive: str
    splits: Mapping[str, SplitFiles]
    terms: str
    citation: str
    known_issues: str = ""
    classes: tuple[str, ...] = ()  # scored by default; (): all
    ignore_classes: tuple[str, ...] = ()  # neither objects nor background
    drops_empty_boxes: bool = False  # boxes without area are left out; a known issue of the set
    unlabeled: Mapping[str, str] = MappingProxyType({})  # splits without boxes -> the reason
    signature: str = ""  # a file that identifies the set; "": the files of any split do


def _voc(**counts: int) -> dict[str, SplitFiles]:
    requires = ("JPEGImages/*.jpg", "Annotations/*.xml")
    return {
        name: SplitFiles((f"ImageSets/Main/{name}.txt",), n, requires) for name, n in counts.items()
    }


def _coco(**counts: int) -> dict[str, SplitFiles]:
    return {
        name: SplitFiles((f"annotations/instances_{name}.json",), n) for name, n in counts.items()
    }


def _llvip() -> dict[str, SplitFiles]:
    counts = {"train": 12_025, "test": 3_463}
    return {
        f"{camera}/{name}": SplitFiles((f"{camera}/{name}/*.jpg",), n, ("Annotations/*.xml",))
        for camera in ("visible", "infrared")
        for name, n in counts.items()
    }


def _flir_aligned() -> dict[str, SplitFiles]:
    lists = {"train": ("align_train", 4_129), "val": ("align_validation", 1_013)}
    return {
        f"{camera}/{name}": SplitFiles(
            (f"{file}.txt", f"ImageSets/Main/{file}.txt"),
            n,
            (f"JPEGImages/*{ending}", "Annotations/*.xml"),
        )
        for camera, ending in (("rgb", ".jpg"), ("thermal", ".jpeg"))
        for name, (file, n) in lists.items()
    }


def _flir_v2() -> dict[str, SplitFiles]:
    splits = {"train": ("images_{}_train", 0), "val": ("images_{}_val", 0)}
    splits["test"] = ("video_{}_test", 3_749)
    return {
        f"{camera}/{name}": SplitFiles((f"{folder.format(camera)}/coco.json",), n)
        for camera in ("rgb", "thermal")
        for name, (folder, n) in splits.items()
    }


def _hit_uav(name: str, images: int) -> SplitFiles:
    jsons = (f"normal_json/annotations/{file}.json" for file in (name, f"instances_{name}"))
    return SplitFiles((*jsons, f"normal_xml/ImageSets/Main/{name}.txt"), images)


def _kaist() -> dict[str, SplitFiles]:
    lists = {"train-all-02": 25_086, "test-all-20": 2_252}
    lists |= {"test-day-20": 1_455, "test-night-20": 797}
    return {
        f"{camera}/{name}": SplitFiles((f"imageSets/{name}.txt",), n, ("images/*",))
        for camera in ("visible", "lwir")
        for name, n in lists.items()
    }


def _domainnet() -> dict[str, SplitFiles]:
    counts = {
        "clipart": (33_525, 14_604),
        "infograph": (36_023, 15_582),
        "painting": (50_416, 21_850),
        "quickdraw": (120_750, 51_750),
        "real": (120_906, 52_041),
        "sketch": (48_212, 20_916),
    }
    return {
        f"{domain}_{name}": SplitFiles((f"{domain}_{name}.txt",), n, (f"{domain}/*",))
        for domain, pair in counts.items()
        for name, n in zip(("train", "test"), pair, strict=True)
    }


_FLIR_TERMS = (
    "FLIR's own, accepted at download (flir.com/oem/adas); the text was not available, so assume "
    "that nothing may be redistributed."
)
_INOUE = (
    "Inoue et al., Cross-Domain Weakly-Supervised Object Detection through Progressive Domain "
    "Adaptation, CVPR 2018"
)
_INOUE_TERMS = (
    "For non-commercial research; the authors do not hold the copyright of the images "
    "(naoto0804/cross-domain-detection)."
)
_VOC_TERMS = "Photographs from flickr, under flickr's terms of use; annotations free for research."
_INOUE_CLASSES = ("bicycle", "bird", "car", "cat", "dog", "person")
_UNLABELED_EXTRA = {"extra": "its boxes are placeholders (1 1 1 1): it is labeled by image only"}

PUBLISHED_SETS: dict[str, PublishedSet] = {
    "llvip": PublishedSet(
        "LLVIP",
        "special",
        "LLVIP",
        "LLVIP.zip",
        _llvip(),
        "Free for non-commercial use, academic or not; cite it, declare labels that are "
        "derived from it, and identify no person.",
        "Jia et al., LLVIP: A Visible-infrared Paired Dataset for Low-light Vision, ICCVW 2021",
        "2 xml files have no box; their images are kept, without objects (empty = 'drop' leaves "
        "them out). 5 boxes have no area and are left out. Labels were revised on 2023-02-21: "
        "state which version you used. Corners are used as written.",
        drops_empty_boxes=True,
    ),
    "flir_aligned": PublishedSet(
        "FLIR aligned",
        "special",
        "align",
        "aligned.zip",
        _flir_aligned(),
        _FLIR_TERMS,
        "Zhang et al., Multispectral Fusion for Object Detection with Cyclic Fuse-and-Refine "
        "Blocks, ICIP 2020 (arXiv 2009.12664)",
        "Both images have the boxes of the thermal one; some misalignment remains. Dogs, of the "
        "original set, are scored only if classes names them.",
        classes=("person", "bicycle", "car"),
    ),
    "flir_adas_v1": PublishedSet(
        "FLIR ADAS v1",
        "special",
        "FLIR_ADAS_1_3",
        "FLIR_ADAS_1_3.zip",
        {
            f"thermal/{name}": SplitFiles(
                (f"{name}/thermal_annotations.json", f"{old_name}/Annotations"), n
            )
            for name, old_name, n in (
                ("train", "training", 8_862),
                ("val", "validation", 1_366),
                ("video", "video", 4_224),
            )
        },
        _FLIR_TERMS,
        "FLIR Thermal Starter Dataset, version 1.3, 2019 (readme of 31 July 2018)",
        "Motorcycles are labeled as bicycles.",
        classes=("person", "bicycle", "car", "dog", "other vehicle"),
        unlabeled=dict.fromkeys(
            ("rgb/train", "rgb/val", "rgb/video"),
            "its RGB images have no labels and are not registered to the thermal ones; "
            "flir_aligned has pairs with boxes",
        ),
    ),
    "flir_adas_v2": PublishedSet(
        "FLIR ADAS v2",
        "special",
        "FLIR_ADAS_v2",
        "FLIR_ADAS_v2.zip",
        _flir_v2(),
        _FLIR_TERMS,
        "Teledyne FLIR Free ADAS Thermal Dataset v2, 2022",
        "Published counts of its train and val images disagree (9,711 or 11,886 thermal), so they "
        "are not checked. In train and val, rgb and thermal images are not paired; the video "
        "frames of the test splits are. The category bicycle of other sets is bike here: "
        "rename = {'bike': 'bicycle'}.",
        classes=(
            *("person", "bike", "car", "motor", "bus", "train", "truck", "light", "hydrant"),
            *("sign", "dog", "skateboard", "stroller", "scooter", "other vehicle"),
        ),
    ),
    "hit_uav": PublishedSet(
        "HIT-UAV",
        "special",
        "HIT-UAV",
        "HIT-UAV.zip",
        {name: _hit_uav(name, n) for name, n in (("train", 2_029), ("val", 290), ("test", 579))},
        "CC BY 4.0.",
        "Suo et al., HIT-UAV: A high-altitude infrared thermal dataset for Unmanned Aerial "
        "Vehicle-based object detection, Scientific Data 10, 227 (2023)",
        "Its json differs from COCO ('filename', 'annotation'). The split is random over frames of "
        "videos: 28 % of the test images have a near-duplicate in train.",
        classes=("Person", "Car", "Bicycle", "OtherVehicle"),
        ignore_classes=("DontCare",),
    ),
    "hit_uav_ir": PublishedSet(
        "HIT-UAV at 320 x 256, split by session",
        "coco",
        "hit_uav_ir",
        "hit_uav_ir.zip",
        _coco(train=1_449, val=270, shift=423),
        "CC BY 4.0.",
        "Suo et al., Scientific Data 10, 227 (2023)",
        "Our own repacking: other splits and half the size, so scores are not those of the paper.",
        signature="annotations/instances_shift.json",
    ),
    "kaist": PublishedSet(
        "KAIST multispectral pedestrians",
        "special",
        "kaist-rgbt",
        "kaist-cvpr15.tar.gz",
        _kaist(),
        "CC BY-NC-SA 4.0 (LICENSE.md of SoonminHwang/rgbt-ped-detection).",
        "Hwang et al., Multispectral Pedestrian Detection: Benchmark Dataset and Baselines, "
        "CVPR 2015",
        "The first labels are often wrong or misplaced; corrected ones are preferred if they exist "
        "(`kaist.LABEL_FOLDERS`). Counts not verified.",
        classes=("person",),
        ignore_classes=("cyclist", "people", "person?"),  # as in the benchmark
    ),
    "coco2017": PublishedSet(
        "COCO 2017",
        "coco",
        "coco",
        "annotations_trainval2017.zip, train2017.zip and val2017.zip",
        _coco(train2017=118_287, val2017=5_000),
        "Annotations CC BY 4.0; images under flickr's terms of use, each with its own license.",
        "Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
        "About 1 % of the images have no object; crowds are ignored.",
    ),
    "voc2007": PublishedSet(
        "Pascal VOC 2007",
        "voc",
        "VOC2007",
        "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
        _voc(train=2_501, val=2_510, trainval=5_011, test=4_952),
        _VOC_TERMS,
        "Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, IJCV 2010",
    ),
    "voc2012": PublishedSet(
        "Pascal VOC 2012",
        "voc",
        "VOC2012",
        "VOCtrainval_11-May-2012.tar",
        _voc(train=5_717, val=5_823, trainval=11_540),
        _VOC_TERMS,
        "Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, IJCV 2010",
        "The labels of its test split are not public.",
    ),
    "clipart1k": PublishedSet(
        "Clipart1k",
        "voc",
        "clipart",
        "clipart.zip",
        _voc(train=500, test=500),
        _INOUE_TERMS,
        _INOUE,
    ),
    "watercolor2k": PublishedSet(
        "Watercolor2k",
        "voc",
        "watercolor",
        "watercolor.zip",
        _voc(train=1_000, test=1_000),
        _INOUE_TERMS,
        _INOUE,
        "Its split extra has images without boxes.",
        classes=_INOUE_CLASSES,
        unlabeled=_UNLABELED_EXTRA,
    ),
    "comic2k": PublishedSet(
        "Comic2k",
        "voc",
        "comic",
        "comic.zip",
        _voc(train=1_000, test=1_000),
        _INOUE_TERMS,
        _INOUE,
        "Its split extra has images without boxes.",
        classes=_INOUE_CLASSES,
        unlabeled=_UNLABELED_EXTRA,
    ),
    "domainnet": PublishedSet(
        "DomainNet",
        "list",
        "domainnet",
        "the zip of each domain, and its lists,",
        _domainnet(),
        "For research; the images were collected from the web, under fair use according to its "
        "page (not verified).",
        "Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019",
        "Counts are those of the cleaned version, 586,575 in all. The sums agree with "
        "ai.bu.edu/M3SDA; the counts of train and test are not verified. The first release has "
        "duplicates.",
    ),
}
DETECTION_SETS = tuple(name for name, entry in PUBLISHED_SETS.items() if entry.layout != "list")
CLASSIFICATION_SETS = tuple(
    name for name, entry in PUBLISHED_SETS.items() if entry.layout == "list"
)
