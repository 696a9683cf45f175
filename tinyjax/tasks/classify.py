"""Classification: what the rest of the system needs of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.data.augmentation import augment_labeled, normalize
from tinyjax.data.classification import views
from tinyjax.data.loading import LABELED, load_set
from tinyjax.data.records import Labeled
from tinyjax.errors import UserError, shorten
from tinyjax.metrics.classification import calibration, resampled, score
from tinyjax.metrics.slices import WHOLE, Examined, Slice
from tinyjax.models.classifier import Classifier
from tinyjax.models.scaling import Architecture
from tinyjax.step import Task, Variables
from tinyjax.tasks import build_backbone

SCORE = "mean_class"  # picks the best weights
SCORES = {"mean_class": "mean per-class accuracy", "top1": "top-1 accuracy"}  # what curves show


def load(
    data: ConfigDict,
    own: ConfigDict,
    classes: Sequence[str] = (),
    corrupt: tuple[str, int] | None = None,
) -> Labeled:
    """A split by the `data` part of a config, `own` arguments over the common ones.

    classes: those of the training split. If the config lists them, images of others are left out.
    corrupt: see `classification.load`.

    Raises UserError as `load_set` does, and if nobody lists the classes and the two sides differ.
    """
    listed = any(group.get("classes") for group in (data.common, data.train))
    more = {"classes": classes} if classes and listed else {}
    split = load_set(data, own, LABELED, corrupt=corrupt, **more)
    if classes and split.classes != tuple(classes):
        name = own.get("split", data.common.get("split"))
        here = shorten(sorted({*split.classes} - {*classes}))
        there = shorten(sorted({*classes} - {*split.classes}))
        raise UserError(
            f"data: split {name!r} has other classes than training (only in {name!r}: {here}; only "
            f"in training: {there}); list those that count as classes in the config's data.common"
        )
    return split


def look(
    training: Labeled, suites: Mapping[str, Labeled], config: ConfigDict, folder: Path
) -> list[str]:
    """The look that a run begins with, as lines.

    Raises UserError if there are no two classes.
    """
    if len(training.classes) < 2:
        raise UserError(
            f"data.train: there is one class, {training.classes[0]!r}, and nothing to tell it "
            "from; give two or more"
        )
    lines = []
    for name, split in {"data.train": training, **suites}.items():
        many = np.bincount(split.labels, minlength=len(split.classes))
        height, width, channels = split.images.shape[1:]
        lines.append(
            f"{name}: {len(split.names)} images of {width} x {height} x {channels}, "
            f"{len(split.classes)} classes of {many.min()} to {many.max()} images"
            + (f"; {split.left_out} of other classes left out" if split.left_out else "")
        )
    return lines


def make_model(config: ConfigDict, classes: int, wide: Architecture | None = None) -> Classifier:
    """The network of a config, for so many classes; wide: see `backbone_of`."""
    return Classifier(build_backbone(config, classes, wide))


def make_task(
    config: ConfigDict,
    classes: tuple[str, ...],
    channels: int,
    wide: Architecture | None = None,
    axes: Sequence[str] = (),
) -> Task:
    """Task of a config: training on random views of `config.crop_size`, prediction on whole images.

    wide: see `backbone_of`. axes: of a mesh that training batches are spread over; a shard's loss
    and metrics are then its part of a sum.
    """
    model, number = make_model(config, len(classes), wide), len(classes)
    window = tuple(config.crop_size)
    # What no member uses is not in the program at all.
    used = [
        name for name in config.augment if name not in ("mixup", "cutmix") or config.augment[name]
    ]

    def init(seed):
        return Variables(*models.init(model, seed, (1, *window, channels)))

    def loss(variables, fixed, batch, key, hyper):
        strength = {name: hyper["augment"][name] for name in used}
        # An image's weight is its class's: where two are mixed each brings its own.
        weight = batch["rarity"] ** hyper["loss"]["class_balance"]
        targets = weight[:, None] * jax.nn.one_hot(batch["labels"], number)
        cut = None if config.data.stream else window  # views are cut while they are decoded
        images, targets = augment_labeled(key, batch["images"], targets, strength, cut, axes)
        logits, stats = models.apply(
            model, variables.params, variables.stats, images,
            train=True, fixed=fixed, axes=axes, momentum=hyper.get("momentum"),
        )  # fmt: skip
        value = cross_entropy(logits, targets, hyper["loss"]["label_smoothing"], axes)
        right = logits.argmax(1) == targets.argmax(1)
        return value, (stats, {"accuracy": right.mean() / jax.lax.axis_size(axes)})

    @jax.jit
    def predict(variables, images):
        """uint8 [B, H, W, C] -> logits f32[B, classes]."""
        x = normalize(images)
        if both := config.predict.flip:
            x = jnp.concatenate([x, x[:, :, ::-1]])
        logits, _ = models.apply(model, variables.params, variables.stats, x, train=False)
        return {"logits": (logits[: len(images)] + logits[len(images) :]) / 2 if both else logits}

    def score_members(predictions, split):
        return [score(own["logits"], split.labels) for own in predictions]

    return Task(init, loss, predict, score_members)


@jax.named_scope("loss")
def cross_entropy(
    logits: Array, targets: Array, smoothing: Array, axes: Sequence[str] = ()
) -> Array:
    """Mean over the batch of the cross-entropy in nats of logits [B, classes] with targets [B,
    classes], of which `smoothing` is spread evenly over all classes (arXiv 1512.00567).

    A row of targets sums to the weight, above 0, that its image has in the mean. axes: of a mesh
    that the batch is spread over; the result is this shard's part of the mean.
    """
    weight = targets.sum(1, keepdims=True)
    targets = (1 - smoothing) * targets + smoothing * weight / logits.shape[1]
    return -(targets * jax.nn.log_softmax(logits)).sum() / jax.lax.psum(weight.sum(), axes)


def slices(split: Labeled, fields: Mapping[str, Sequence[float]]) -> dict[str, Slice]:
    """Parts of a suite that are scored by themselves: none, for nothing is known of an image."""
    return {}


def present(split: Labeled) -> tuple[str, ...]:
    """The classes that a suite has images of."""
    return tuple(split.classes[k] for k in np.unique(split.labels))


def unlike(suites: Mapping[str, Labeled]) -> list[str]:
    """Which suites have which classes: all have the same, see `load`."""
    return []


def examine(
    found: Sequence[Mapping[str, np.ndarray]],
    split: Labeled,
    config: ConfigDict,
    slices: Mapping[str, Slice],
    counts: np.ndarray,
) -> list[Examined]:
    """Each member's predictions for a suite, examined in full, see `classify.score`."""
    return [
        Examined(
            {
                WHOLE: {
                    **score(own["logits"], split.labels),
                    "ECE": calibration(own["logits"], split.labels),
                }
            },
            {WHOLE: resampled(own["logits"], split.labels, counts)},
            {},
        )
        for own in found
    ]


def samples(split: Labeled, found: Mapping[str, np.ndarray], path: Path) -> None:
    """A sheet of images with what they show and what they are taken for."""
    from tinyjax.reporting import classification

    classification.samples(split, found["logits"], path)


def report(
    folder: Path,
    suites: Mapping[str, Labeled],
    found: Mapping[str, Mapping[str, np.ndarray]],
    scores: Mapping[str, Mapping[str, float]],
    training: Mapping[str, tuple[int, int]],
) -> None:
    """Tables and figures of how it did, see `classify.report`."""
    from tinyjax.reporting import classification

    classification.report(folder, suites, {name: own["logits"] for name, own in found.items()})


def tail(split: Labeled, used: np.ndarray) -> dict[str, tuple[int, int]]:
    """Of each class the images that it is learned from, which are its objects as well."""
    many = np.bincount(split.labels[used], minlength=len(split.classes)).tolist()
    return {name: (n, n) for name, n in zip(split.classes, many, strict=True)}


def by_tail(training: Mapping[str, tuple[int, int]], scores: dict[str, float]) -> dict[str, float]:
    """A suite's scores by how many examples a class had: none, for they are not kept by class."""
    return {}


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores as text: a row for each suite."""
    columns = ("mean_class", "top1", "top5", "images")
    lines = [f"{'suite':<12}" + "".join(f"{name:>12}" for name in columns)]
    for suite, values in scores.items():
        numbers = "".join(f"{values[name]:>12.3f}" for name in columns[:-1])
        lines.append(f"{suite:<12}{numbers}{values['images']:>12.0f}")
    return "\n".join(lines)


def on_device(split: Labeled) -> dict[str, jax.Array]:
    """What training reads of a split, as arrays [N, ...] on the device; images stay uint8."""
    everything = of_subset(split, np.ones(len(split.labels), bool))
    images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
    return {"images": images, "labels": labels, "rarity": jnp.asarray(everything["rarity"])}


def element(split: Labeled, config: ConfigDict) -> Any:
    """Samples of a training set that is left on disk, see `disk.batches`."""
    rarity = of_subset(split, np.ones(len(split.labels), bool))["rarity"]
    return views(split, rarity, tuple(config.crop_size), config.augment.area, config.augment.aspect)


def labels(split: Labeled) -> list[np.ndarray]:
    """Of each image its class, as an array of one."""
    return [*split.labels[:, None]]


def of_subset(split: Labeled, used: np.ndarray) -> dict[str, np.ndarray]:
    """What of `on_device` is another if only the images `used` are there: [N], float32."""
    count = np.bincount(split.labels[used], minlength=len(split.classes))
    return {"rarity": (1 / np.maximum(count, 1)[split.labels]).astype(np.float32)}


def in_file_pixels(predictions: dict[str, np.ndarray], split: Labeled) -> dict[str, np.ndarray]:
    """Predictions for the files: a label has no pixels."""
    return predictions
