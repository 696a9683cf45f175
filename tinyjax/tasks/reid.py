"""The task of visible-infrared recognition: the same identity in images of both modalities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.core import ModelFunctions, ReportWords, Task, Variables
from tinyjax.data import identity_checks
from tinyjax.data.augmentation import normalize
from tinyjax.data.loading import RECOGNITION_FORMATS, load_split
from tinyjax.data.records import RecognitionSplit
from tinyjax.errors import UserError, suggest
from tinyjax.metrics import modality_gap, retrieval, verification
from tinyjax.metrics.slices import ALL_IMAGES, Slice, SuiteResult, resample_counts
from tinyjax.models.scaling import Architecture
from tinyjax.recognition import augmentation, losses, triplets
from tinyjax.recognition.network import RecognitionNetwork
from tinyjax.recognition.sampling import IdentityTables, identity_tables, sample_identities
from tinyjax.run.text import text_table
from tinyjax.tasks import recognition_network

TRIPLETS = {
    "batch_hard": triplets.batch_hard_triplet,
    "four_way": triplets.four_way_triplet,
    "weighted": lambda features, labels, margin, axes: triplets.weighted_triplet(
        features, labels, axes
    ),
}
FEATURES = ("embedding", "pooled")
WORDS = ReportWords(
    resampled="identities",
    slices="protocols",
    whole_suite="main protocol",
    slices_note="The main protocol is score.protocol, by default the first one of the suite.",
    # A smaller gallery alone raises the scores of val.
    other_suites="On other identities and galleries",
)

# ---- data


def load(
    data: ConfigDict,
    split: ConfigDict,
    classes: Sequence[str] = (),
    corruption: tuple[str, int] | None = None,
) -> RecognitionSplit:
    """Load a split by a config's `data`, with the arguments in `split` over the common ones.

    classes: not used, because suites have other identities than the training split. corruption:
    name and severity. Raises UserError as `load_split` does.
    """
    return load_split(data, split, RECOGNITION_FORMATS, corruption)


def describe_data(
    training: RecognitionSplit,
    suites: Mapping[str, RecognitionSplit],
    config: ConfigDict,
    folder: Path,
) -> list[str]:
    """The lines that a run logs about its data.

    Raises UserError for images of another size than `crop_size`, too few identities, or a suite
    without the protocol of the main scores.
    """
    size = training.inputs["image"].shape[1:3]
    if size != tuple(config.crop_size):
        raise UserError(
            f"crop_size = {tuple(config.crop_size)}: the images have {size}; give the same "
            "(height, width) as data.common.size"
        )
    _, left_out = _tables(training, config.sampler.identities)
    lines = [f"data.train: {line}" for line in identity_checks.describe(training)]
    if left_out:
        lines.append(f"data.train: {len(left_out)} identities of one modality are not used")
    for name, split in suites.items():
        main_protocol(split, config)
        lines += [f"{name}: {line}" for line in identity_checks.describe(split)]
    return lines


def _tables(split: RecognitionSplit, identities: int) -> tuple[IdentityTables, tuple[str, ...]]:
    return identity_tables(split.labels, split.inputs["modality"], split.classes, identities)


def device_arrays(split: RecognitionSplit) -> dict[str, Any]:
    """Images, which stay uint8, and labels [N]; tables of the images of each identity."""
    tables, _ = _tables(split, 1)
    return {
        "image": jnp.asarray(split.inputs["image"]),
        "labels": jnp.asarray(split.labels),
        "tables": IdentityTables(*map(jnp.asarray, tables)),
    }


def sample(
    seed: Array,
    step: Array,
    config: ConfigDict,
    data: Mapping[str, Any],
    subset: Array | None = None,
) -> Array:
    """A `Task.sample`: identities and their images, see `sample_identities`."""
    identities = config.sampler.identities
    images = config.batch // (2 * identities)
    return sample_identities(seed, step, data["tables"], identities, images)


def sample_labels(split: RecognitionSplit) -> list[np.ndarray]:
    """The identity of each image, as an array of one."""
    return [*split.labels[:, None]]


def class_counts(split: RecognitionSplit, mask: np.ndarray) -> dict[str, tuple[int, int]]:
    """Nothing: scores are not by identity."""
    return {}


def classes_present(split: RecognitionSplit) -> tuple[str, ...]:
    """The identities of the split."""
    return split.classes


def stream_source(split: RecognitionSplit, config: ConfigDict) -> Any:
    """Raises UserError: batches are drawn by identity, from memory."""
    raise UserError("data.stream: training draws images by identity from memory; leave it out")


# ---- network


def build(
    config: ConfigDict, classes: int, supernet: Architecture | None = None
) -> RecognitionNetwork:
    """The network of a config. Raises UserError as `recognition_network.build` does, for an unknown
    form of the triplet loss or feature, and for a batch that identities do not divide.
    """
    identities, batch = config.sampler.identities, config.batch
    if config.triplet not in TRIPLETS:
        raise UserError(f"triplet = {config.triplet!r}: {suggest(config.triplet, TRIPLETS)}")
    if (feature := config.score.feature) not in FEATURES:
        raise UserError(f"score.feature = {feature!r}: {suggest(feature, FEATURES)}")
    if identities < 1 or batch % (2 * identities):
        raise UserError(
            f"batch = {batch}, sampler.identities = {identities}: each identity has as many "
            "visible as infrared images; give a batch that is a multiple of twice the identities"
        )
    return recognition_network.build(config, classes, supernet)


def model_functions(
    config: ConfigDict,
    classes: Sequence[str],
    inputs: Mapping[str, tuple[int, ...]],
    supernet: Architecture | None = None,
    axes: Sequence[str] = (),
) -> ModelFunctions:
    """Training on batches of visible and infrared images of the same identities; prediction of
    embeddings.

    Args:
        inputs: {"image": (H, W, C), "modality": ()}.
        supernet: see `build_backbone`.
        axes: mesh axes that training batches are spread over; loss and metrics are then a shard's
            partial sums.

    Raises UserError as `build` does.
    """
    model, channels = build(config, len(classes), supernet), inputs["image"][-1]
    strengths = augmentation.used_strengths(config.augment)
    triplet, steps = TRIPLETS[config.triplet], config.schedule.steps

    def init(seed):
        return Variables(*models.init(model, seed, (1, *config.crop_size, channels), (1,)))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        weight, labels = hyper["loss"], batch["labels"]
        strength = {name: hyper["augment"][name] for name in strengths}
        images = augmentation.augment_pairs(key, batch["image"], strength, axes)
        outputs, stats = models.apply(
            model, *variables, images, None, train=True, frozen_batchnorm=frozen_batchnorm,
            axes=axes, momentum=hyper.get("momentum"),
        )  # fmt: skip
        value = losses.identity_loss(outputs["logits"], labels, weight["label_smoothing"], axes)
        terms = {"identity_loss": value}
        value = weight["identity"] * value
        if config.loss.triplet:
            term = triplet(outputs["pooled"], labels, weight["margin"], axes)
            started = hyper["step"] >= weight["triplet_start"] * steps
            terms["triplet_loss"] = term
            value += jnp.where(started, weight["triplet"], 0) * term
        correct = outputs["logits"].argmax(1) == labels
        terms["accuracy"] = correct.mean() / jax.lax.axis_size(axes)
        return value, (stats, terms)

    @jax.jit
    def predict(variables, inputs):
        """image uint8 [B, H, W, C], modality uint8 [B] -> embedding f32[B, D]."""
        x, modality = normalize(inputs["image"]), inputs["modality"]
        size = x.shape[0]
        if flip := config.predict.flip:
            x, modality = jnp.concatenate([x, x[:, :, ::-1]]), jnp.tile(modality, 2)
        outputs, _ = models.apply(model, *variables, x, modality, train=False)
        feature = outputs[config.score.feature]
        feature /= jnp.linalg.norm(feature, axis=1, keepdims=True) + 1e-12
        return {"embedding": (feature[:size] + feature[size:]) / 2 if flip else feature}

    return ModelFunctions(init, loss, predict)


# ---- results


def metrics(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The main scores, with the name of the protocol if the config gives one."""
    name = config.get("score", {}).get("protocol", "")
    suffix = f" ({name})" if name else ""
    return {"mAP": f"mAP{suffix}", "R1": f"rank-1{suffix}", "mINP": f"mINP{suffix}"}


def main_protocol(split: RecognitionSplit, config: ConfigDict) -> str:
    """The protocol of the main scores. Raises UserError for an unknown one."""
    name = config.score.protocol or next(iter(split.protocols), "")
    if name not in split.protocols:
        raise UserError(f"score.protocol = {name!r}: {suggest(name, split.protocols)}")
    return name


def score(
    predictions: Sequence[Mapping[str, np.ndarray]], split: RecognitionSplit, config: ConfigDict
) -> list[dict[str, float]]:
    """Each member's scores by the main protocol, see `retrieval.summarize`."""
    name = main_protocol(split, config)
    selected = split._replace(protocols={name: split.protocols[name]})
    return [retrieval.score(p["embedding"], selected)[name].scores for p in predictions]


def evaluate_slices(
    predictions: Sequence[Mapping[str, np.ndarray]],
    split: RecognitionSplit,
    config: ConfigDict,
    slices: Mapping[str, Slice],
    counts: np.ndarray,
) -> list[SuiteResult]:
    """Evaluate each member by all protocols: the main one on the suite as a whole, and the others
    as its slices. The scores of the whole suite include the modality gap. Intervals are over
    identities, not images.
    """
    main = main_protocol(split, config)
    names = {main: ALL_IMAGES} | {name: name for name in split.protocols if name != main}
    by_identity = resample_counts(len(split.classes))

    def evaluate_member(embedding):
        results = retrieval.score(embedding, split)
        scores = {names[name]: dict(result.scores) for name, result in results.items()}
        scores[ALL_IMAGES] |= modality_gap.measure(embedding, split).scores
        if config.score.verification:
            for name, rates in verification.score(embedding, split).items():
                scores[names[name]] |= rates.scores
        replicates = {
            names[name]: retrieval.resampled_scores(result, by_identity)["mAP"]
            for name, result in results.items()
        }
        return SuiteResult(
            scores, replicates, retrieval.first_lists(embedding, split, split.protocols[main])
        )

    return [evaluate_member(p["embedding"]) for p in predictions]


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores as text: a row per suite."""
    columns = ("R1", "R5", "R10", "R20", "mAP", "mINP")
    rows = [
        {
            "suite": suite,
            **{name: values[name] for name in columns},
            "queries": f"{values['queries']:.0f}",
            "gallery": f"{values['gallery']:.0f}",
        }
        for suite, values in scores.items()
    ]
    return text_table(rows, ("suite", *columns, "queries", "gallery"))


def plot_samples(
    split: RecognitionSplit, predictions: Mapping[str, np.ndarray], path: Path
) -> None:
    """Draw queries, of which the worst come first, with the first images of their ranking."""
    from tinyjax.reporting import rank_lists

    rank_lists.save_worst(split, predictions["embedding"], path)


def write_report(
    folder: Path,
    suites: Mapping[str, RecognitionSplit],
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    scores: Mapping[str, Mapping[str, float]],
    class_counts: Mapping[str, tuple[int, int]],
    config: ConfigDict,
) -> None:
    """Write tables and figures of a single run, see `reporting.recognition.write_report`."""
    from tinyjax.reporting import recognition

    recognition.write_report(folder, suites, {n: p["embedding"] for n, p in predictions.items()})


def draw_gallery(
    suite: str,
    split: RecognitionSplit,
    members: Sequence[Any],
    lists: Sequence[Mapping[str, np.ndarray]],
    config: ConfigDict,
) -> Any:
    """The worst queries of one or two members, see `rank_lists.make_gallery`."""
    from tinyjax.reporting import rank_lists

    return rank_lists.make_gallery(suite, split, main_protocol(split, config), members, lists)


TASK = Task(
    name="reid",
    inputs=("image", "modality"),
    monitor="mAP",
    metrics=metrics,
    compile_seconds=30.0,
    pixel_seconds=5e-8,
    load=load,
    describe_data=describe_data,
    sample=sample,
    device_arrays=device_arrays,
    stream_source=stream_source,
    sample_labels=sample_labels,
    class_counts=class_counts,
    classes_present=classes_present,
    build=build,
    model_functions=model_functions,
    score=score,
    evaluate_slices=evaluate_slices,
    score_table=score_table,
    plot_samples=plot_samples,
    write_report=write_report,
    identity_record=identity_checks.identity_record,
    find_leak=identity_checks.find_leak,
    renews_class_layers=True,
    draw_gallery=draw_gallery,
    words=WORDS,
)
