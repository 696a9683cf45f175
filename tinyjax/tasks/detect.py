"""Detection: what the rest of the system needs of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.data.augmentation import augment, normalize
from tinyjax.data.detection import Frames
from tinyjax.data.images import to_file
from tinyjax.data.loading import load_set
from tinyjax.data.records import Split
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.losses import detection_loss
from tinyjax.detectors.nms import detections
from tinyjax.detectors.point import Detector
from tinyjax.errors import UserError
from tinyjax.metrics.class_frequency import counts, groups
from tinyjax.metrics.detection import score_each
from tinyjax.metrics.slices import Examined, Slice, slices_of
from tinyjax.models.scaling import Architecture
from tinyjax.step import Task, Variables
from tinyjax.tasks import build_backbone

SCORE = "AP50"  # picks the best weights
SCORES = {"AP50": "AP50 (IoU 0.50)", "AP": "AP (IoU 0.50:0.95)"}  # what curves show
STRIDES = (4, 8, 16, 32)
FIELDS = ("images", "boxes", "labels", "valid", "ignore")


def load(
    data: ConfigDict,
    own: ConfigDict,
    classes: Sequence[str] = (),
    corrupt: tuple[str, int] | None = None,
) -> Split:
    """A split by the `data` part of a config, `own` arguments over the common ones.

    classes: those of the training split, of which a suite of another source need not have all.
    corrupt: see `files.load`. Raises UserError as `load_set` does.
    """
    theirs, ours = ({**data.common, **one}.get("source") for one in (data.train, own))
    more: dict[str, Any] = {"classes": classes, "match": theirs != ours} if classes else {}
    return load_set(data, own, corrupt=corrupt, **more)


def look(
    training: Split, suites: Mapping[str, Split], config: ConfigDict, folder: Path
) -> list[str]:
    """The look that a run begins with, as lines; label statistics are drawn into `folder`.

    Raises UserError without an object to learn from, or to pick the best weights by.
    """
    from tinyjax.data import statistics
    from tinyjax.reporting import figures

    if not training.valid.any():
        raise UserError("data.train: this split has no objects to learn from")
    if not suites[config.monitor].valid.any():
        raise UserError(f"monitor = {config.monitor!r}: this suite has no objects to score")
    figures.labels(training, config.model.strides, folder / "figures" / "labels.png")
    return statistics.brief(
        training, suites, min(config.model.strides), twins=not config.data.stream
    )


def make_model(config: ConfigDict, classes: int, wide: Architecture | None = None) -> Detector:
    """The network of a config, for so many classes; wide: see `backbone_of`.

    Raises UserError if `model.strides` are none that it can have, and as `backbone_of` does.
    """
    strides = tuple(config.model.strides)
    if strides not in {STRIDES[i:j] for i in range(4) for j in range(i + 1, 5)}:
        raise UserError(f"model.strides = {strides}: give one or more of {STRIDES}, in a row")
    m = config.model
    return Detector(build_backbone(config, wide=wide), classes, strides, m.width, m.fusions)


def make_task(
    config: ConfigDict,
    classes: tuple[str, ...],
    channels: int,
    wide: Architecture | None = None,
    axes: Sequence[str] = (),
) -> Task:
    """Task of a config: training on windows of `config.crop_size`, prediction on whole frames.

    wide: see `backbone_of`. axes: of a mesh that training batches are spread over; a shard's loss
    and metrics are then its part of a sum.

    Raises UserError as `make_model` does, and for a transposition of windows that are not square.
    """
    model = make_model(config, len(classes), wide)
    window = tuple(config.crop_size)
    if config.augment.transpose > 0 and window[0] != window[1]:
        raise UserError(
            f"augment.transpose = {config.augment.transpose}: crop = {window} is not square; "
            "give a square crop, or transpose = 0"
        )
    grid = make_grid(window[0], window[1], model.strides)

    def init(seed):
        return Variables(*models.init(model, seed, (1, *window, channels)))

    def loss(variables, fixed, batch, key, hyper):
        batch = augment(key, batch, hyper["augment"], window, axes)
        (logits, offsets), stats = models.apply(
            model, variables.params, variables.stats, batch["images"],
            train=True, fixed=fixed, axes=axes, momentum=hyper.get("momentum"),
        )  # fmt: skip
        value, parts = detection_loss(logits, offsets, batch, hyper["loss"], grid, axes)
        return value, (stats, parts)

    @jax.jit
    def predict(variables, images):
        """uint8 [B, H, W, C] -> boxes, scores, labels of `detections`, in pixels of `images`."""
        (logits, offsets), _ = models.apply(
            model, variables.params, variables.stats, normalize(images), train=False
        )
        frame = make_grid(images.shape[1], images.shape[2], model.strides)
        return detections(logits, offsets, frame, **config.nms)

    def score_members(predictions, split):
        bins = {name: tuple(sides) for name, sides in config.score.size_bins.items()}
        return score_each([(in_file_pixels(own, split), split.truth, bins) for own in predictions])

    return Task(init, loss, predict, score_members)


def slices(split: Split, fields: Mapping[str, Sequence[float]]) -> dict[str, Slice]:
    """The parts of a suite that are scored by themselves, see `slices_of`."""
    return slices_of(split.truth["images"], fields)


def present(split: Split) -> tuple[str, ...]:
    """The classes that a suite has objects of."""
    return tuple(
        name for k, name in enumerate(split.classes) if (split.labels == k)[split.valid].any()
    )


def unlike(suites: Mapping[str, Split]) -> list[str]:
    """Which suites have which classes, if some lack some: see `look.classes`."""
    from tinyjax.data import statistics

    return statistics.classes([(name, statistics.look(split)) for name, split in suites.items()])


def examine(
    found: Sequence[Mapping[str, np.ndarray]],
    split: Split,
    config: ConfigDict,
    slices: Mapping[str, Slice],
    counts: np.ndarray,
) -> list[Examined]:
    """Each member's predictions for a suite, examined in full, see `detect.examine`."""
    bins = {name: tuple(sides) for name, sides in config.score.size_bins.items()}
    jobs = [(in_file_pixels(own, split), split.truth, bins, slices, counts) for own in found]
    return score_each(jobs, "tinyjax.metrics.detection_slices:examine")


def samples(split: Split, found: Mapping[str, np.ndarray], path: Path) -> None:
    """A sheet of truth and prediction, see `pictures.samples`."""
    from tinyjax.reporting import pictures

    pictures.samples(split, found, path)


def report(
    folder: Path,
    suites: Mapping[str, Split],
    found: Mapping[str, Mapping[str, np.ndarray]],
    scores: Mapping[str, Mapping[str, float]],
    training: Mapping[str, tuple[int, int]],
) -> None:
    """Tables and figures of how it did, see `figures.report`. training: see `tail`."""
    from tinyjax.reporting import figures
    from tinyjax.reporting.transfer_figures import draw_tail

    figures.report(folder, suites, found, scores)
    if training:
        draw_tail(training, scores, folder / "figures" / "tail.png")


def tail(split: Split, used: np.ndarray) -> dict[str, tuple[int, int]]:
    """Of each class the images and objects that it is learned from."""
    return counts(split, used)


def by_tail(training: Mapping[str, tuple[int, int]], scores: dict[str, float]) -> dict[str, float]:
    """A suite's scores by how many examples a class had, see `detect.tail`."""
    return groups(training, scores)


def table(scores: dict[str, dict[str, float]]) -> str:
    """Scores as text: a row per suite and part (all, each class, each size bin), columns AP, AP50,
    AP75.
    """
    lines = [f"{'suite':<12}{'part':<16}{'AP':>8}{'AP50':>8}{'AP75':>8}{'images':>8}{'boxes':>8}"]
    for suite, s in scores.items():
        whole = f"{suite:<12}{'all':<16}{s['AP']:>8.3f}{s['AP50']:>8.3f}{s['AP75']:>8.3f}"
        lines.append(f"{whole}{s['images']:>8.0f}{s['boxes']:>8.0f}")
        for key in s:
            if key.startswith("AP/"):
                part = key.removeprefix("AP/")
                lines.append(f"{suite:<12}{part:<16}{s[key]:>8.3f}{s[f'AP50/{part}']:>8.3f}")
    return "\n".join(lines)


def on_device(split: Split) -> dict[str, jax.Array]:
    """What training reads of a split, as arrays [N, ...] on the device; images stay uint8."""
    return {name: jnp.asarray(getattr(split, name)) for name in FIELDS}


def element(split: Split, config: ConfigDict) -> Any:
    """Samples of a training set that is left on disk, see `disk.batches`."""
    arrays = {name: getattr(split, name) for name in FIELDS if name != "images"}
    return Frames(split.images.read, arrays)  # type: ignore[attr-defined]


def labels(split: Split) -> list[np.ndarray]:
    """Of each image the classes of its objects."""
    return [own[valid] for own, valid in zip(split.labels, split.valid, strict=True)]


def of_subset(split: Split, used: np.ndarray) -> dict[str, np.ndarray]:
    """What of `on_device` is another if only the images `used` are there."""
    return {}


def in_file_pixels(predictions: Mapping[str, Any], split: Split) -> dict[str, np.ndarray]:
    """Predictions for a split [N, K, ...], boxes mapped from the network's input back to the files'
    pixels and cut off at the images' borders, as labels are.
    """
    boxes = [
        np.clip(to_file(b, s, o), 0, (info["width"], info["height"]) * 2)
        for b, s, o, info in zip(
            predictions["boxes"], split.scale, split.offset, split.truth["images"], strict=True
        )
    ]
    return {**predictions, "boxes": np.stack(boxes).astype(np.float32)}
