"""Published data sets as their archives unpack: where their images and labels stand, how many there
are, on what terms, and what is known to be wrong with them. `places` reads them.

Counts and terms are those of the sets' own pages, unless "not verified" is said: then they are what
public loaders agree on. Nothing is downloaded and no set is part of this project.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Part(NamedTuple):
    """A split of a set."""

    at: tuple[str, ...]  # what it is read from, seen from the set's folder: the first that is there
    images: int = 0  # as published; 0: unknown, or sources disagree
    needs: tuple[str, ...] = ()  # what else must stand there


class Set(NamedTuple):
    """A published set. A path that ends in /*.jpg is a folder with such files in it."""

    title: str
    layout: str  # that of `voc`, `coco`, or lists for `classification`; "own": see `places`
    folder: str  # in which the archive wraps it
    archive: str
    parts: Mapping[str, Part]  # by the name of the split
    terms: str
    cite: str
    faults: str = ""
    classes: tuple[str, ...] = ()  # scored where none are named; (): all
    ignore_classes: tuple[str, ...] = ()  # neither objects nor background
    no_area: bool = False  # boxes without an area are known of, and left out
    unlabeled: Mapping[str, str] = MappingProxyType({})  # parts without boxes, and why
    sign: str = ""  # a file that only this set has; "": any of its parts tells it


def _voc(**counts: int) -> dict[str, Part]:
    needs = ("JPEGImages/*.jpg", "Annotations/*.xml")
    return {name: Part((f"ImageSets/Main/{name}.txt",), n, needs) for name, n in counts.items()}


def _coco(**counts: int) -> dict[str, Part]:
    return {name: Part((f"annotations/instances_{name}.json",), n) for name, n in counts.items()}


def _llvip() -> dict[str, Part]:
    counts = {"train": 12_025, "test": 3_463}
    return {
        f"{kind}/{name}": Part((f"{kind}/{name}/*.jpg",), n, ("Annotations/*.xml",))
        for kind in ("visible", "infrared")
        for name, n in counts.items()
    }


def _flir_aligned() -> dict[str, Part]:
    lists = {"train": ("align_train", 4_129), "val": ("align_validation", 1_013)}
    return {
        f"{kind}/{name}": Part(
            (f"{file}.txt", f"ImageSets/Main/{file}.txt"),
            n,
            (f"JPEGImages/*{ending}", "Annotations/*.xml"),
        )
        for kind, ending in (("rgb", ".jpg"), ("thermal", ".jpeg"))
        for name, (file, n) in lists.items()
    }


def _flir_v2() -> dict[str, Part]:
    splits = {"train": ("images_{}_train", 0), "val": ("images_{}_val", 0)}
    splits["test"] = ("video_{}_test", 3_749)
    return {
        f"{kind}/{name}": Part((f"{folder.format(kind)}/coco.json",), n)
        for kind in ("rgb", "thermal")
        for name, (folder, n) in splits.items()
    }


def _hit_uav(name: str, images: int) -> Part:
    jsons = (f"normal_json/annotations/{file}.json" for file in (name, f"instances_{name}"))
    return Part((*jsons, f"normal_xml/ImageSets/Main/{name}.txt"), images)


def _kaist() -> dict[str, Part]:
    lists = {"train-all-02": 25_086, "test-all-20": 2_252}
    lists |= {"test-day-20": 1_455, "test-night-20": 797}
    return {
        f"{kind}/{name}": Part((f"imageSets/{name}.txt",), n, ("images/*",))
        for kind in ("visible", "lwir")
        for name, n in lists.items()
    }


def _domainnet() -> dict[str, Part]:
    counts = {
        "clipart": (33_525, 14_604),
        "infograph": (36_023, 15_582),
        "painting": (50_416, 21_850),
        "quickdraw": (120_750, 51_750),
        "real": (120_906, 52_041),
        "sketch": (48_212, 20_916),
    }
    return {
        f"{domain}_{name}": Part((f"{domain}_{name}.txt",), n, (f"{domain}/*",))
        for domain, both in counts.items()
        for name, n in zip(("train", "test"), both, strict=True)
    }


_FLIR_TERMS = (
    "FLIR's own, accepted at download (flir.com/oem/adas); the text was not at hand, so take it "
    "that nothing may be passed on."
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
_SIX = ("bicycle", "bird", "car", "cat", "dog", "person")
_EXTRA = {"extra": "its boxes are placeholders (1 1 1 1): it is labeled by image only"}

SETS: dict[str, Set] = {
    "llvip": Set(
        "LLVIP",
        "own",
        "LLVIP",
        "LLVIP.zip",
        _llvip(),
        "Free for non-commercial use, academic or not; cite it, say so where labels are derived "
        "from it, and identify no person.",
        "Jia et al., LLVIP: A Visible-infrared Paired Dataset for Low-light Vision, ICCVW 2021",
        "2 xml files without a box, whose images stay, without objects (empty = 'drop' leaves them "
        "out); 5 boxes without area, which are left out. Labels were revised on 2023-02-21: say "
        "which you used. Corners are used as they are written.",
        no_area=True,
    ),
    "flir_aligned": Set(
        "FLIR aligned",
        "own",
        "align",
        "aligned.zip",
        _flir_aligned(),
        _FLIR_TERMS,
        "Zhang et al., Multispectral Fusion for Object Detection with Cyclic Fuse-and-Refine "
        "Blocks, ICIP 2020 (arXiv 2009.12664)",
        "Boxes are those of the thermal image, for both; some misalignment is left. Of the dogs of "
        "the set it was made from nothing is scored unless it is named.",
        classes=("person", "bicycle", "car"),
    ),
    "flir_adas_v1": Set(
        "FLIR ADAS v1",
        "own",
        "FLIR_ADAS_1_3",
        "FLIR_ADAS_1_3.zip",
        {
            f"thermal/{ours}": Part((f"{ours}/thermal_annotations.json", f"{old}/Annotations"), n)
            for ours, old, n in (
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
    "flir_adas_v2": Set(
        "FLIR ADAS v2",
        "own",
        "FLIR_ADAS_v2",
        "FLIR_ADAS_v2.zip",
        _flir_v2(),
        _FLIR_TERMS,
        "Teledyne FLIR Free ADAS Thermal Dataset v2, 2022",
        "Published counts of its train and val images disagree (9,711 or 11,886 thermal), so none "
        "is compared; train and val of rgb and thermal are no pairs, the video frames of the test "
        "splits are. What others call bicycle is bike: rename = {'bike': 'bicycle'}.",
        classes=(
            *("person", "bike", "car", "motor", "bus", "train", "truck", "light", "hydrant"),
            *("sign", "dog", "skateboard", "stroller", "scooter", "other vehicle"),
        ),
    ),
    "hit_uav": Set(
        "HIT-UAV",
        "own",
        "HIT-UAV",
        "HIT-UAV.zip",
        {n: _hit_uav(n, k) for n, k in (("train", 2_029), ("val", 290), ("test", 579))},
        "CC BY 4.0.",
        "Suo et al., HIT-UAV: A high-altitude infrared thermal dataset for Unmanned Aerial "
        "Vehicle-based object detection, Scientific Data 10, 227 (2023)",
        "Its json is not quite COCO ('filename', 'annotation'). The split is random over frames of "
        "videos: 28 % of the test images have a near-duplicate in train.",
        classes=("Person", "Car", "Bicycle", "OtherVehicle"),
        ignore_classes=("DontCare",),
    ),
    "hit_uav_ir": Set(
        "HIT-UAV at 320 x 256, split by session",
        "coco",
        "hit_uav_ir",
        "hit_uav_ir.zip",
        _coco(train=1_449, val=270, shift=423),
        "CC BY 4.0.",
        "Suo et al., Scientific Data 10, 227 (2023)",
        "Our own repacking: other splits and half the size, so scores are not those of the paper.",
        sign="annotations/instances_shift.json",
    ),
    "kaist": Set(
        "KAIST multispectral pedestrians",
        "own",
        "kaist-rgbt",
        "kaist-cvpr15.tar.gz",
        _kaist(),
        "CC BY-NC-SA 4.0 (LICENSE.md of SoonminHwang/rgbt-ped-detection).",
        "Hwang et al., Multispectral Pedestrian Detection: Benchmark Dataset and Baselines, "
        "CVPR 2015",
        "The first labels are often wrong or misplaced; later ones are read before them where they "
        "stand beside (`kaist.LABELS`). Counts not verified.",
        classes=("person",),
        ignore_classes=("cyclist", "people", "person?"),  # as the benchmark has it
    ),
    "coco2017": Set(
        "COCO 2017",
        "coco",
        "coco",
        "annotations_trainval2017.zip, train2017.zip and val2017.zip",
        _coco(train2017=118_287, val2017=5_000),
        "Annotations CC BY 4.0; images under flickr's terms of use, each with its own license.",
        "Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
        "About 1 % of the images have no object; crowds are don't-care.",
    ),
    "voc2007": Set(
        "Pascal VOC 2007",
        "voc",
        "VOC2007",
        "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
        _voc(train=2_501, val=2_510, trainval=5_011, test=4_952),
        _VOC_TERMS,
        "Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, IJCV 2010",
    ),
    "voc2012": Set(
        "Pascal VOC 2012",
        "voc",
        "VOC2012",
        "VOCtrainval_11-May-2012.tar",
        _voc(train=5_717, val=5_823, trainval=11_540),
        _VOC_TERMS,
        "Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, IJCV 2010",
        "The labels of its test split are kept by the challenge.",
    ),
    "clipart1k": Set(
        "Clipart1k",
        "voc",
        "clipart",
        "clipart.zip",
        _voc(train=500, test=500),
        _INOUE_TERMS,
        _INOUE,
    ),
    "watercolor2k": Set(
        "Watercolor2k",
        "voc",
        "watercolor",
        "watercolor.zip",
        _voc(train=1_000, test=1_000),
        _INOUE_TERMS,
        _INOUE,
        "Its list extra names images without boxes.",
        classes=_SIX,
        unlabeled=_EXTRA,
    ),
    "comic2k": Set(
        "Comic2k",
        "voc",
        "comic",
        "comic.zip",
        _voc(train=1_000, test=1_000),
        _INOUE_TERMS,
        _INOUE,
        "Its list extra names images without boxes.",
        classes=_SIX,
        unlabeled=_EXTRA,
    ),
    "domainnet": Set(
        "DomainNet",
        "list",
        "domainnet",
        "the zip of each domain, and its lists,",
        _domainnet(),
        "For research; the images were collected from the web, under fair use as its page has it "
        "(not verified).",
        "Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019",
        "Counts are the cleaned version's, 586,575 in all, its sums those of ai.bu.edu/M3SDA, its "
        "halves not verified; the first release holds duplicates.",
    ),
}
BOXES = tuple(name for name, one in SETS.items() if one.layout != "list")
WHOLE = tuple(name for name, one in SETS.items() if one.layout == "list")  # classification
