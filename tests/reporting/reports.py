"""Folders of evaluated runs, sweeps and studies with known content, as `train` and `evaluate` write
them. A member's score is the mean over images of numbers that are drawn around `truth`, so that
intervals over images and seeds are what a simulation knows.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax import config as configs
from tinyjax.config import classifier, detector
from tinyjax.data.synthetic import dataset
from tinyjax.run import run_folder
from tinyjax.run.csv_files import METRICS, write_rows

SIZES = {"s-6": 26e3, "s-5": 40e3, "s-4": 65e3, "s-3": 119e3, "s-2": 235e3, "s-1": 434e3}
KINDS = ("noise", "blur", "contrast")
BINS = ("<8", "8-16", "16-32", ">32")
CLASSES = ("person", "vehicle", "animal")
IMAGES = {"val": {"n": 24, "seed": 1}, "shift": {"n": 24, "seed": 2, "day": 1.0}}
FRAME = (96, 128)
SLICES = ("time_of_day=day", "time_of_day=night", "altitude_m=60-90")


class World(NamedTuple):
    """The true score of a network, and how far seeds and images lie around it."""

    at: float = 0.35  # of the smallest in its own domain
    growth: float = 0.08  # for ten times the parameters
    gain: float = 0.0  # of pretraining
    threshold: float = 0.0  # parameters from which on it grows by that much a decade; 0: it is flat
    gap: float = 0.12  # what a shift takes
    seeds: float = 0.01
    images: float = 0.15

    def truth(self, parameters: float, start: str) -> float:
        grown = np.log10(max(1.0, parameters / self.threshold)) if self.threshold else 1.0
        gain = self.gain * grown if start else 0.0
        return self.at + self.growth * np.log10(parameters / 26e3) + gain


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
) -> list[str]:
    """A sweep of sizes x starts x seeds, or the run of one member; returns the members' ids.

    varied: a further column of members.csv, all members have this value. draw: of the
    noise, the same in the same draw.
    """
    rng, varied = np.random.default_rng(draw), varied or {}
    points = [(size, start, seed) for size in sizes for start in starts for seed in range(seeds)]
    one = len(points) == 1
    ids = [
        run_folder.member_id(
            {} if one else {"model.backbone": size, "init": start, "seed": seed, **varied}
        )
        for size, start, seed in points
    ]
    config = _config(task, corrupt, starts[0] if len(starts) == 1 else "")
    run_folder.create(folder, configs.to_json(config))
    environment = folder / "environment.txt"
    command = "command: python -m tinyjax.train --config configs/x.py --workdir runs/x\n"
    environment.write_text(command + environment.read_text())

    members, metrics, results, rows = [], [], [], []
    parts = [part for suite in IMAGES for part in (suite, *(f"{suite}/{s}" for s in SLICES))]
    parts += ["val-c"] if corrupt else []
    replicates = np.zeros((len(points), len(parts), resamples), np.float32)
    resample = np.random.default_rng(1).multinomial
    shares = {part: resample(images, [1 / images] * images, resamples) / images for part in parts}
    hardness = {part: rng.normal(0, world.images, images) for part in parts}
    for m, (id, (size, start, seed)) in enumerate(zip(ids, points, strict=True)):
        parameters = SIZES.get(size) or 26e3 * 1.4 ** (int(size[1:]) % 9)
        true = world.truth(parameters, start) + rng.normal(0, world.seeds)
        members.append(
            {
                "member": id,
                "seed": seed,
                "backbone": f"mobilenetv3/{size}",
                "parameters": int(parameters),
                "backbone_parameters": int(parameters * 0.8),
                "trained_parameters": int(parameters),
                "multiply_adds": int(parameters * 95),
                **({"init": start} if len(starts) > 1 else {}),
                **varied,
            }
        )
        for step in steps:
            part = step / max(steps)
            metrics += [(id, step, "train", "loss", 3 / (0.2 + 4 * part) + rng.normal(0, 0.05))]
            metrics += [(id, step, "train", "lr", 1e-3)]
            if step % 300 == 0:
                metrics += [(id, step, "val", _score(task), true * part**0.5)]
        for s, part in enumerate(parts):
            suite, _, slice = part.partition("/")
            low = (suite == "shift") * world.gap + 0.05 * (slice == SLICES[1])
            value = (true - low) + hardness[part] + rng.normal(0, 0.02, images)
            replicates[m, s] = shares[part] @ value
            named = {"member": id, "suite": suite, "slice": slice, "corruption": "", "severity": ""}
            rows.append({**named, **_scores(task, float(value.mean()), images)})
            if not slice and suite != "val-c":
                stopped = {"member": id, "suite": suite, "diverged_at": -1}
                more = {"rgn": 0.02 / true} if rgn else {}
                results.append({**stopped, **_scores(task, float(value.mean()), images), **more})
        for k, kind in enumerate(KINDS if corrupt else ()):
            for severity in range(1, 6):
                named = {"member": id, "suite": "val-c", "slice": "", "corruption": kind}
                value = true * (1 - 0.05 * (k + 1) * severity)
                rows.append({**named, "severity": severity, **_scores(task, value, images)})
        about = {"classes": CLASSES, "frame": (*FRAME, 1), "config": config.to_dict()}
        (folder / "weights").mkdir(exist_ok=True)
        (folder / "weights" / f"{id}.json").write_text(json.dumps(about))
        if task == "detect":
            _detections(folder / "evaluations" / "last" / id, parameters, rng)

    for name, table in {"members": members, "results": results}.items():
        write_rows(folder / f"{name}.csv", table, table[0])
    table = [dict(zip(METRICS, row, strict=True)) for row in metrics]
    write_rows(folder / "metrics.csv", table, METRICS)
    write_rows(folder / "evaluations" / "last.csv", rows, rows[0])
    asked = {
        "command": f"python -m tinyjax.evaluate --workdir {folder}",
        "config": config.to_dict(),
    }
    (folder / "evaluations" / "last.json").write_text(json.dumps(asked))
    np.savez(
        folder / "evaluations" / "last.npz",
        members=np.array(ids),
        parts=np.array(parts),
        replicates=replicates,
    )
    return ids


def _config(task: str, corrupt: bool, init: str) -> Any:
    config = detector() if task == "detect" else classifier()
    config.init = init
    config.data.format = "synthetic" if task == "detect" else "folder"
    config.data.common = {"size": FRAME} if task == "detect" else {"source": "there/is/none"}
    config.data.train = {"n": 100, "seed": 3} if task == "detect" else {"split": "train"}
    config.data.suites = {
        name: own if task == "detect" else {"split": name} for name, own in IMAGES.items()
    }
    if corrupt:
        config.data.suites["val-c"] = {**config.data.suites["val"].to_dict(), "corrupt": KINDS}
    return config


def _score(task: str) -> str:
    return "AP50" if task == "detect" else "mean_class"


def _scores(task: str, value: float, images: int) -> dict[str, float]:
    common = {"images": images, "ECE": 0.3 * (1 - value) ** 2}
    if task == "classify":
        return {"mean_class": value, "top1": value + 0.02, "top5": 0.9, **common}
    each = {
        f"{name}/{part}": factor * value * (0.6 + 0.15 * k)
        for name, factor in (("AP", 0.5), ("AP50", 1.0))
        for group in (CLASSES, BINS)
        for k, part in enumerate(group)
    }
    whole = {"AP": 0.5 * value, "AP50": value, "AP75": 0.4 * value, "AR100": 0.7 * value}
    return {**whole, **each, "boxes": 9 * images, **common}


def _detections(folder: Path, parameters: float, rng: np.random.Generator) -> None:
    """Of the first images the smallest network finds nothing, the others everything."""
    folder.mkdir(parents=True)
    for suite, own in IMAGES.items():
        split = _scenes(**own)
        seen = split.valid.copy()
        seen[:6] &= parameters > 30e3
        image = np.nonzero(seen)[0]
        np.savez(
            folder / f"{suite}.npz",
            boxes=split.boxes[seen] + rng.normal(0, 0.4, (len(image), 4)).astype(np.float32),
            scores=np.full(len(image), 0.8, np.float32),
            labels=split.labels[seen],
            image=image,
            wrong=(split.valid & ~seen).sum(1),
            hits=seen.sum(1),
        )


@cache
def _scenes(**own: float) -> Any:
    return dataset.load(size=FRAME, **own)


def study(folder: Path, world: World = DEFAULT, sets: Sequence[str] = ("a", "b"), **how: Any):
    """A folder of sweeps, one trained on each set."""
    for name in sets:
        write(folder / name, world, **how)
