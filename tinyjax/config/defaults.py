"""The fields of every config: default and meaning.

`docs/configs.md` is generated from these tables (`python docs/make_configs.py`).
"""

import copy
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from ml_collections import ConfigDict

from tinyjax.config.detectors import DETECTORS, Fields
from tinyjax.config.recognition import PRETRAINING, RECOGNITION
from tinyjax.errors import UserError, suggest

# Sizes are (height, width) in pixels, lengths in steps.
SHARED: Fields = {  # fields of all tasks
    "seed": (0, "seed of the initial weights, the order of the data and every random draw"),
    "init": (
        "",
        "starting weights: a run folder (of a sweep: its member with the same backbone and seed), "
        "<run>/averages/paths-N, a .safetensors or a .pth file; docs/transfer.md",
    ),
    "reinit": (
        (),
        "patterns of parameter paths that keep their random initialization, whether or not `init` "
        "has weights for them",
    ),
    "freeze": ((), "frozen parameters: presets, or (pattern, multiplier) rules; docs/transfer.md"),
    "phases": (
        (),
        "dicts field -> value, one per phase; a phase starts from the weights of the previous one",
    ),
    "model.backbone": (
        "mobilenetv3/s-1",
        "family/variant, such as mobilenetv3/s-1, efficientnet/b-3 or resnet/18@w0.25; "
        "docs/backbones.md lists all",
    ),
    "model.batchnorm_eps": (
        0.0,
        "epsilon of BatchNorm; 0: the value of the family, or of the weights in `init`",
    ),
    "model.squeeze_excite": (
        "",
        "squeeze-excite after every stage of the backbone: identity starts as the identity, "
        "authors starts with gates near 1/2; docs/transfer.md",
    ),
    "model.adapters": (False, "residual adapters after every block, which start as the identity"),
    "model.dtype": (
        "float32",
        "type of activations: float32 or bfloat16; weights and losses stay float32",
    ),
    "data.on_error": (
        "stop",
        "stop at the first broken image or box; or skip: leave broken ones out and log them",
    ),
    "data.stream": (
        False,
        "leave images on disk and decode them batch by batch; for data sets larger than memory",
    ),
    "data.workers": (
        0,
        "processes that decode streamed images; 0: threads, as fast on a few cores",
    ),
    "data.common": ({}, "arguments of the loader for all splits; docs/data.md"),
    "data.train": ({}, "further arguments of the loader for the training split"),
    "data.suites": (
        {},
        "name -> further arguments of the loader; every suite is scored; docs/robustness.md",
    ),
    "data.repeat_threshold": (
        0.0,
        "repeat training images of classes that fewer than this fraction of the images have, by "
        "sqrt(threshold / fraction); 0: no repeats; LVIS: 0.001",
    ),
    "subset.fraction": (1.0, "fraction of the training images to use, drawn by seed"),
    "subset.shots": (
        0,
        "skip an image if each of its classes already has this many objects; 0: skip none",
    ),
    "optimizer.name": ("adamw", "adamw, sgd or nesterov"),
    "optimizer.lr": (2e-3, "peak learning rate"),
    "optimizer.backbone_lr_scale": (1.0, "factor on the learning rate of the backbone"),
    "optimizer.layer_decay": (
        1.0,
        "further factor per block of the backbone, counted from its last block",
    ),
    "optimizer.auto_rgn": (
        0.0,
        "scale each kernel's learning rate by its relative gradient norm to this power; 0: do not, "
        "1: auto-RGN",
    ),
    "optimizer.weight_decay": (
        0.05,
        "decay of kernels, not of biases and BatchNorm; multiplied by the learning rate",
    ),
    "optimizer.momentum": (0.9, "momentum of SGD; b1 of AdamW"),
    "optimizer.b2": (0.999, "b2 of AdamW"),
    "optimizer.clip_norm": (10.0, "maximum global norm of the gradient; 0: no clipping"),
    "regularizer.strength": (
        0.0,
        "strength of the regularizer toward the backbone's starting weights; 0: none",
    ),
    "regularizer.name": (
        "l2sp",
        "l2sp: all weights alike; ewc, fisher, rgn: each weight by its measured importance",
    ),
    "regularizer.batches": (
        100,
        "batches to measure the importances on before training; at most one epoch",
    ),
    "schedule.steps": (8000, "number of training steps"),
    "schedule.warmup": (300, "steps of linear warmup"),
    "schedule.decay_start": (0.4, "fraction of the steps before the learning rate decays"),
    "schedule.shape": ("cosine", "shape of the decay: cosine, linear or steps"),
    "schedule.milestones": (
        (0.25, 0.625),
        "with the shape steps: fractions of the steps after which the rate is divided by 10",
    ),
    "schedule.final_lr_scale": (0.02, "final learning rate as a fraction of the peak"),
    "ema": (0.998, "decay of the averaged weights, which are scored and saved"),
    "log_every": (50, "steps between rows of metrics.csv"),
    "save_every": (500, "steps between checkpoints"),
    "eval_every": (1000, "steps between evaluations"),
    "monitor": ("val", "suite whose score selects the best weights and is used for `patience`"),
    "patience": (0, "stop after this many evaluations without a better score; 0: never"),
    "log.tensorboard": (False, "also write event files; pip install 'tinyjax[tensorboard]'"),
    "log.wandb": ("", "also log to this W&B project; pip install 'tinyjax[wandb]'"),
}

DETECTION: Fields = {  # fields of all detectors
    "task": ("detect", "detect objects"),
    "model.detector": ("point", f"name of the detector: {', '.join(DETECTORS)}"),
    "data.format": (
        "auto",
        "coco, voc, yolo, arrayrecord or synthetic; auto: recognize the layout of the files",
    ),
    "data.slices": (
        {},
        "field of a COCO file's images -> edges of half-open bins, or () for each value; every "
        "slice of a suite is scored separately",
    ),
    "crop_size": (
        (128, 160),
        "size of a training window in pixels of the frame; prediction is on full frames",
    ),
    "batch": (16, "windows per step"),
    "augment.flip": (0.5, "probability of a horizontal flip"),
    "augment.flip_vertical": (0.0, "probability of a vertical flip"),
    "augment.transpose": (0.0, "probability of swapping rows and columns; for square windows"),
    "augment.scale_low": (0.6, "smallest zoom; the zoom is log-uniform"),
    "augment.scale_high": (1.6, "largest zoom"),
    "augment.aspect": (0.0, "log range of the aspect ratio, width over height"),
    "augment.object_crop": (0.7, "probability that the window is placed around a random object"),
    "augment.contrast": (0.4, "log range of the gain"),
    "augment.brightness": (0.1, "range of the offset; 1 is the full gray range"),
    "augment.noise": (0.02, "maximum standard deviation of noise; 1 is the full gray range"),
    "augment.invert": (0.0, "probability of inverted polarity: hot becomes cold"),
    "score.protocol": (
        "coco",
        "rules of the scores: coco; voc2007 or voc: Pascal VOC's, by 11 points or the area under "
        "the curve; lvis: for federated labels",
    ),
    "score.size_bins": (
        {"<8": (0, 8), "8-16": (8, 16), "16-32": (16, 32), ">32": (32, 100000)},
        "name -> (from, to): side of a square with the area of the object, in pixels of the file",
    ),
}

CLASSIFICATION: Fields = {
    "task": ("classify", "classify whole images"),
    "data.format": ("folder", "a folder of images for each class; or list, tfds"),
    "crop_size": (
        (96, 96),
        "size of a random training view in pixels; prediction is on full images",
    ),
    "batch": (64, "images per step"),
    "augment.flip": (0.5, "probability of a horizontal flip"),
    "augment.area": (0.25, "smallest fraction of the image's area that a view covers"),
    "augment.aspect": (
        0.58,
        "log range of the aspect ratio, width over height; 0.58: 9/16 to 16/9, streamed 3/4 to 4/3",
    ),
    "augment.contrast": (0.4, "log range of the gain"),
    "augment.brightness": (0.1, "range of the offset; 1 is the full gray range"),
    "augment.noise": (0.0, "maximum standard deviation of noise; 1 is the full gray range"),
    "augment.invert": (0.0, "probability of inverted polarity"),
    "augment.mixup": (0.0, "mixup: parameter of the Beta distribution; 0: none"),
    "augment.cutmix": (0.0, "CutMix: parameter of the Beta distribution; 0: none"),
    "predict.flip": (False, "average the logits of the image and of its mirror image"),
    "loss.label_smoothing": (0.1, "fraction of a label that is spread over all classes"),
    "loss.class_balance": (
        0.5,
        "weight of an image: (1 / images of its class) to this power",
    ),
}


def detection_fields(name: str = "point") -> Fields:
    """The fields of a detection config, with those of the detector `name`. Raises UserError."""
    if name not in DETECTORS:
        raise UserError(f"model.detector = {name!r}: {suggest(name, DETECTORS)}")
    meaning = DETECTION["model.detector"][1]
    return {**SHARED, **DETECTION, "model.detector": (name, meaning), **DETECTORS[name]}


def classification_fields() -> Fields:
    """The fields of a classification config."""
    return {**SHARED, **CLASSIFICATION}


def detector(name: str = "point", neck: str = "") -> ConfigDict:
    """The default config of detection by the detector `name`.

    neck: `model.neck`; "": the default.

    Raises UserError for an unknown detector, and for a neck of a detector that has its own.
    """
    config = _config(detection_fields(name))
    if neck and "neck" not in config.model:
        raise UserError(f"neck = {neck!r}: the detector {name} has its own; leave neck out")
    if neck:
        config.model.neck = neck
    return config


def classifier() -> ConfigDict:
    """The default config of classification."""
    return _config(classification_fields())


def recognizer() -> ConfigDict:
    """The default config of visible-infrared recognition."""
    return _config({**SHARED, **RECOGNITION})


def pretraining() -> ConfigDict:
    """The default config of task-oriented pretraining."""
    return _config({**SHARED, **PRETRAINING})


def fill_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a run's config, with the default of each field that is missing in it.

    Raises UserError for an unknown `model.detector`.
    """
    completed = copy.deepcopy(dict(config))
    task_fields = {"classify": CLASSIFICATION, "reid": RECOGNITION, "pretrain": PRETRAINING}
    if (task := completed.get("task")) in task_fields:
        fields = {**SHARED, **task_fields[task]}
    else:
        fields = detection_fields(completed.get("model", {}).get("detector", "point"))
    for path, (default, _) in fields.items():
        *groups, name = path.split(".")
        group = completed
        for key in groups:
            group = group.setdefault(key, {})
        group.setdefault(name, default)
    return completed


def _config(fields: Fields) -> ConfigDict:
    config: dict[str, Any] = {}
    for path, (default, _) in fields.items():
        *groups, name = path.split(".")
        group = config
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = default
    # A misspelled field in a config file is an error; only fields that are dicts accept new keys.
    locked = ConfigDict(config).lock()
    for path, (default, _) in fields.items():
        if isinstance(default, dict):
            attrgetter(path)(locked).unlock()
    return locked
