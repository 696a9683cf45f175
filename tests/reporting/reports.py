"""Fake folders of evaluated runs, sweeps and studies, as `train` and `evaluate` write them.

A member's score is the mean over images of random numbers around `World.truth`, so that the
expected intervals over images and seeds are known.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax import config as configs
from tinyjax.config import classifier, detector, recognizer
from tinyjax.data.synthetic import dataset, identities
from tinyjax.metrics import retrieval
from tinyjax.run import run_folder
from tinyjax.run.csv_files import METRIC_COLUMNS, write_rows

SIZES = {"s-6": 26e3, "s-5": 40e3, "s-4": 65e3, "s-3": 119e3, "s-2": 235e3, "s-1": 434e3}
CORRUPTIONS = ("noise", "blur", "contrast")
BINS = ("<8", "8-16", "16-32", ">32")
CLASSES = ("person", "vehicle", "animal")
TRAINING = {"person": (90, 700), "vehicle": (60, 200), "animal": (8, 12)}  # images, objects
IMAGES = {"val": {"n": 24, "seed": 1}, "shift": {"n": 24, "seed": 2, "day": 1.0}}
FRAME = (96, 128)
PEOPLE = {
    "val": {"n": 3, "split": "test", "per_camera": (1, 1)},
    "shift": {"n": 3, "split": "test", "per_camera": (1, 1), "seed": 2},
}
PERSON = (32, 16)
SLICES = ("time_of_day=day", "time_of_day=night", "altitude_m=60-90")
PROTOCOLS = ("infrared_to_visible",)
SCORES = {"detect": "AP50", "classify": "mean_class", "reid": "mAP"}
# Options of `write`: few images, no metrics during training, no corrupted suite.
SMALL = {"images": 60, "resamples": 100, "steps": (), "corrupt": False}


class World(NamedTuple):
    """The true scores of networks, and the standard deviations of seeds and images."""

    base: float = 0.35  # in-domain score of the smallest network
    growth: float = 0.08  # of the score per tenfold size
    gain: float = 0.0  # of pretraining
    threshold: float = 0.0  # parameters above which it grows by `gain` per decade; 0: constant
    gap: float = 0.12  # loss under shift
    seeds: float = 0.01
    images: float = 0.15

    def truth(self, parameters: float, start: str) -> float:
        decades = np.log10(max(1.0, parameters / self.threshold)) if self.threshold else 1.0
        gain = self.gain * decades if start else 0.0
        return self.base + self.growth * np.log10(parameters / 26e3) + gain


DEFAULT = World()


def write(
    folder: Path,
    world: World = DEFAULT,
    task: str = "detect",
    sizes: Sequence[str] = tuple(SIZES),
    starts: Sequence[str] = ("", "runs/caltech101"),
    seeds: int = 3,
    varied: dict[str, str] | None = None,
    images: int = 200,
    resamples: int = 200,
    corrupt: bool = True,
    rgn: bool = True,
    steps: Sequence[int] = range(50, 1501, 50),
    draw: int = 0,
    protocol: str = "coco",
) -> list[str]:
    """Write a sweep of sizes x starts x seeds, or a run of one member; return the members' ids.

    varied: further columns of members.csv, with one value for all members. draw: seed of the noise.
    protocol: of a detector's scores.
    """
    rng, varied = np.random.default_rng(draw), varied or {}
    points = [(size, start, seed) for size in sizes for start in starts for seed in range(seeds)]
    single = len(points) == 1
    ids = [
        run_folder.member_id(
            {} if single else {"model.backbone": size, "init": start, "seed": seed, **varied}
        )
        for size, start, seed in points
    ]
    config = _config(task, corrupt, starts[0] if len(starts) == 1 else "")
    if task == "detect":
        config.score.protocol = protocol
    extra = {"APr": 0.125, "APc": 0.25, "APf": 0.375, "AP fixed": 0.5} if protocol == "lvis" else {}
    _write_config(folder, config)

    members, metrics, results, rows = [], [], [], []
    slices = PROTOCOLS if task == "reid" else SLICES
    subsets = [name for suite in IMAGES for name in (suite, *(f"{suite}/{s}" for s in slices))]
    subsets += ["val-c"] if corrupt else []
    class_subsets = [f"{suite}/classes={name}" for suite in IMAGES for name in CLASSES]
    parts = [*subsets, *(class_subsets if task == "detect" else ())]
    replicates = np.zeros((len(points), len(parts), resamples), np.float32)
    resample = np.random.default_rng(1).multinomial
    shares = {name: resample(images, [1 / images] * images, resamples) / images for name in subsets}
    hardness = {name: rng.normal(0, world.images, images) for name in subsets}
    for m, (id, (size, start, seed)) in enumerate(zip(ids, points, strict=True)):
        parameters = SIZES.get(size) or 26e3 * 1.4 ** (int(size[1:]) % 9)
        true = world.truth(parameters, start) + rng.normal(0, world.seeds)
        init = {"init": start} if len(starts) > 1 else {}
        members.append({**_member_row(id, seed, size, parameters), **init, **varied})
        metrics += _metric_rows(id, task, steps, true, rng)
        for s, name in enumerate(subsets):
            suite, _, slice = name.partition("/")
            loss = (suite == "shift") * world.gap + 0.05 * (slice == SLICES[1])
            value = (true - loss) + hardness[name] + rng.normal(0, 0.02, images)
            replicates[m, s] = shares[name] @ value
            keys = {"member": id, "suite": suite, "slice": slice, "corruption": "", "severity": ""}
            rows.append({**keys, **_scores(task, float(value.mean()), images), **extra})
            if not slice and suite != "val-c":
                keys = {"member": id, "suite": suite, "diverged_at": -1}
                norm = {"rgn": 0.02 / true} if rgn else {}
                results.append({**keys, **_scores(task, float(value.mean()), images), **norm})
        for s, name in enumerate(parts[len(subsets) :], start=len(subsets)):
            suite, _, class_name = name.partition("/classes=")
            factor = _class_factor(CLASSES.index(class_name))
            replicates[m, s] = factor * replicates[m, subsets.index(suite)]
        rows += _corruption_rows(id, task, true, images) if corrupt else []
        metadata = {"classes": CLASSES, "frame": (*FRAME, 1), "config": config.to_dict()}
        metadata |= {"training": TRAINING} if task == "detect" else {}
        (folder / "weights").mkdir(exist_ok=True)
        (folder / "weights" / f"{id}.json").write_text(json.dumps(metadata))
        if task == "detect":
            _write_detections(folder / "evaluations" / "last" / id, parameters, rng)
        elif task == "reid":
            _write_rank_lists(folder / "evaluations" / "last" / id, parameters)

    write_rows(folder / "members.csv", members, members[0])
    write_rows(folder / "results.csv", results, results[0])
    write_rows(folder / "metrics.csv", metrics, METRIC_COLUMNS)
    write_rows(folder / "evaluations" / "last.csv", rows, rows[0])
    arrays = {"members": np.array(ids), "parts": np.array(parts), "replicates": replicates}
    np.savez(folder / "evaluations" / "last.npz", **arrays)
    return ids


def _write_config(folder: Path, config: Any) -> None:
    """Write config.json, environment.txt and evaluations/last.json."""
    run_folder.create(folder, configs.to_json(config))
    environment = folder / "environment.txt"
    command = "command: python -m tinyjax.train --config configs/x.py --workdir runs/x\n"
    environment.write_text(command + environment.read_text())
    command = f"python -m tinyjax.evaluate --workdir {folder}"
    evaluation = {"command": command, "config": config.to_dict()}
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "last.json").write_text(json.dumps(evaluation))


def _member_row(id: str, seed: int, size: str, parameters: float) -> dict[str, Any]:
    return {
        "member": id,
        "seed": seed,
        "backbone": f"mobilenetv3/{size}",
        "parameters": int(parameters),
        "backbone_parameters": int(parameters * 0.8),
        "trained_parameters": int(parameters),
        "multiply_adds": int(parameters * 95),
    }


def _metric_rows(
    id: str, task: str, steps: Sequence[int], true: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Rows of metrics.csv: losses and learning rates, and scores every 300 steps."""
    rows = []
    for step in steps:
        progress = step / max(steps)
        rows.append((id, step, "train", "loss", 3 / (0.2 + 4 * progress) + rng.normal(0, 0.05)))
        rows.append((id, step, "train", "lr", 1e-3))
        if step % 300 == 0:
            rows.append((id, step, "val", SCORES[task], true * progress**0.5))
    return [dict(zip(METRIC_COLUMNS, row, strict=True)) for row in rows]


def _corruption_rows(id: str, task: str, true: float, images: int) -> list[dict[str, Any]]:
    rows = []
    for k, corruption in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            keys = {"member": id, "suite": "val-c", "slice": "", "corruption": corruption}
            value = true * (1 - 0.05 * (k + 1) * severity)
            rows.append({**keys, "severity": severity, **_scores(task, value, images)})
    return rows


def _config(task: str, corrupt: bool, init: str) -> Any:
    config = {"detect": detector, "classify": classifier, "reid": recognizer}[task]()
    config.init = init
    config.data.format = "folder" if task == "classify" else "synthetic"
    size = PERSON if task == "reid" else FRAME
    config.data.common = {"source": "no/such/folder"} if task == "classify" else {"size": size}
    config.data.train = {"n": 100, "seed": 3} if task == "detect" else {"split": "train"}
    config.data.suites = {
        "detect": IMAGES,
        "classify": {name: {"split": name} for name in IMAGES},
        "reid": PEOPLE,
    }[task]
    if corrupt:
        config.data.suites["val-c"] = {
            **config.data.suites["val"].to_dict(),
            "corrupt": CORRUPTIONS,
        }
    return config


def _scores(task: str, value: float, images: int) -> dict[str, float]:
    common = {"images": images, "ECE": 0.3 * (1 - value) ** 2}
    if task == "classify":
        return {"mean_class": value, "top1": value + 0.02, "top5": 0.9, **common}
    if task == "reid":
        gap = {"mAP visible": 0.75, "mAP infrared": 0.5, "mAP visible to infrared": value}
        scores = {"mAP": value, "R1": value + 0.02, "mINP": 0.25, **gap, "probe accuracy": 0.875}
        return {**scores, "mAP infrared to visible": value, "queries": images}
    subsets = {
        f"{name}/{subset}": factor * value * _class_factor(k)
        for name, factor in (("AP", 0.5), ("AP50", 1.0))
        for group in (CLASSES, BINS)
        for k, subset in enumerate(group)
    }
    totals = {"AP": 0.5 * value, "AP50": value, "AP75": 0.4 * value, "AR100": 0.7 * value}
    return {**totals, **subsets, "boxes": 9 * images, **common}


def _class_factor(k: int) -> float:
    """Score of the k-th class or size, relative to the total."""
    return 0.6 + 0.15 * k


def _write_detections(folder: Path, parameters: float, rng: np.random.Generator) -> None:
    """The smallest network detects nothing in the first images, all others detect everything."""
    folder.mkdir(parents=True)
    for suite, options in IMAGES.items():
        split = _scenes(**options)
        detected = split.valid.copy()
        detected[:6] &= parameters > 30e3
        image = np.nonzero(detected)[0]
        np.savez(
            folder / f"{suite}.npz",
            boxes=split.boxes[detected] + rng.normal(0, 0.4, (len(image), 4)).astype(np.float32),
            scores=np.full(len(image), 0.8, np.float32),
            labels=split.labels[detected],
            image=image,
            wrong=(split.valid & ~detected).sum(1),
            hits=detected.sum(1),
        )


def _write_rank_lists(folder: Path, parameters: float) -> None:
    """The smallest network finds a match of the first queries last, all others find it first."""
    folder.mkdir(parents=True)
    for suite in PEOPLE:
        split = load_people(suite)
        embedding = np.eye(len(split.classes))[split.labels]
        if parameters < 30e3:
            embedding[split.inputs["modality"] == 1] *= -1
        protocol = split.protocols["visible_to_infrared"]
        lists = retrieval.first_lists(embedding, split, protocol)
        np.savez(folder / f"{suite}.npz", **lists)


@cache
def load_people(suite: str) -> Any:
    return identities.load(size=PERSON, **PEOPLE[suite])


@cache
def _scenes(**options: float) -> Any:
    return dataset.load(size=FRAME, **options)


def study(folder: Path, world: World = DEFAULT, sets: Sequence[str] = ("a", "b"), **options: Any):
    """Write a folder of sweeps, one for each training set."""
    for name in sets:
        write(folder / name, world, **options)
