"""What every config starts from: each field, its default and what it means.

`docs/configs.md` is made from these tables (`python docs/make_configs.py`).
"""

import copy
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from ml_collections import ConfigDict

# Sizes are (height, width) in pixels, lengths in steps.
DETECTOR: dict[str, tuple[Any, str]] = {
    "task": ("detect", "find objects; or classify"),
    "seed": (0, "of the first weights, the order of the data and every random draw"),
    "init": (
        "",
        "starting weights: a run folder, that of a sweep (of the same backbone and seed there), a "
        ".safetensors or a .pth; docs/transfer.md",
    ),
    "reinit": ((), "patterns of paths that start anew although `init` has them, or should have"),
    "freeze": ((), "what stands still: presets, or (pattern, multiplier) rules; docs/transfer.md"),
    "phases": ((), "dicts field -> value, one after the other, each from the weights of the last"),
    "model.backbone": (
        "mobilenetv3/s-1",
        "family/variant: efficientnet/b0, b-1 .. b-7, mobilenetv3/small, s-1 .. s-6",
    ),
    "model.batchnorm_eps": (
        0.0,
        "of BatchNorm; 0: that of the family, or of the weights in `init`",
    ),
    "model.strides": ((4, 8), "of the head's levels: one or more of 4, 8, 16, 32, in a row"),
    "model.neck_width": (0, "channels of neck and head; 0: those of the backbone at stride 16"),
    "model.neck_repeats": (1, "times that the neck joins its levels, from above and from below"),
    "model.squeeze_excite": (
        "",
        "squeeze-excite after every stage of the backbone: identity, which starts as nothing, or "
        "authors, which starts by halving; docs/transfer.md",
    ),
    "model.adapters": (False, "residual adapters after every block, which start as nothing"),
    "model.dtype": ("float32", "of activations, or bfloat16; weights and losses stay float32"),
    "data.format": (
        "auto",
        "coco, voc, yolo, arrayrecord, or auto to go by what is there; synthetic",
    ),
    "data.on_error": (
        "stop",
        "at the first image or box that is broken; skip: leave such out, and say which",
    ),
    "data.stream": (False, "leave images on disk and decode each step's: for sets beyond memory"),
    "data.workers": (0, "processes that decode them; 0: threads, as fast on a few cores"),
    "data.common": ({}, "arguments of the loader, docs/data.md, for all splits"),
    "data.train": ({}, "what the training split adds to them"),
    "data.suites": ({}, "name -> what a suite adds; every suite is scored; docs/robustness.md"),
    "data.slices": (
        {},
        "field of a COCO file's images -> edges of half-open bins, or () for each value: parts of "
        "suites that are scored by themselves",
    ),
    "subset.fraction": (1.0, "of the training images that are used, drawn by seed"),
    "subset.shots": (
        0,
        "images are passed over once their classes were seen so many times; 0: none is",
    ),
    "crop_size": (
        (128, 160),
        "window of training, in pixels of the frame; prediction is on whole frames",
    ),
    "batch": (16, "windows a step"),
    "augment.flip": (0.5, "probability of a mirror image, left to right"),
    "augment.flip_vertical": (0.0, "probability of a mirror image, upside down"),
    "augment.transpose": (0.0, "probability of rows becoming columns; for square windows"),
    "augment.scale_low": (0.6, "zoom is log-uniform from this"),
    "augment.scale_high": (1.6, "to this"),
    "augment.aspect": (0.0, "log range of width over height"),
    "augment.object_crop": (0.7, "probability that the window is laid around some object"),
    "augment.contrast": (0.4, "log range of the gain"),
    "augment.brightness": (0.1, "range of the offset; 1 is the full gray range"),
    "augment.noise": (0.02, "largest standard deviation, same unit"),
    "augment.invert": (0.0, "probability of turned polarity: hot becomes cold"),
    "loss.class": (1.0, "weight of the quality focal loss"),
    "loss.box": (2.0, "weight of the DIoU loss"),
    "loss.offset": (0.25, "weight of the L1 loss of the box's numbers"),
    "optimizer.name": ("adamw", "or sgd, nesterov"),
    "optimizer.lr": (2e-3, "at the top of the schedule"),
    "optimizer.backbone_lr_scale": (1.0, "part of the rate that the backbone takes"),
    "optimizer.layer_decay": (1.0, "and of that each block, times that of the block behind it"),
    "optimizer.auto_rgn": (
        0.0,
        "power of each kernel's relative gradient norm on its rate; 0: none, 1: auto-RGN",
    ),
    "optimizer.weight_decay": (0.05, "of kernels, not of biases and BatchNorm; times the rate"),
    "optimizer.momentum": (0.9, "of SGD; AdamW's b1"),
    "optimizer.b2": (0.999, "of AdamW"),
    "optimizer.clip_norm": (10.0, "largest global norm of the gradient; 0: any"),
    "regularizer.strength": (
        0.0,
        "with which the backbone is pulled to its starting weights; 0: none",
    ),
    "regularizer.name": ("l2sp", "all weights alike, or by what ewc, fisher or rgn say of each"),
    "regularizer.batches": (100, "that these are measured on before training; at most an epoch"),
    "schedule.steps": (8000, "how long to train"),
    "schedule.warmup": (300, "steps of linear rise"),
    "schedule.decay_start": (0.4, "part of the steps before the rate goes down"),
    "schedule.shape": ("cosine", "of the way down, or linear"),
    "schedule.final_lr_scale": (0.02, "part of the rate that is left at the end"),
    "ema": (0.998, "decay of the averaged weights, which are the ones that are scored and kept"),
    "log_every": (50, "steps between rows of metrics.csv"),
    "save_every": (500, "steps between checkpoints"),
    "eval_every": (1000, "steps between evaluations"),
    "monitor": ("val", "the suite whose score picks the best weights and counts for patience"),
    "patience": (0, "evaluations without a better score before stopping; 0: never"),
    "nms.iou_threshold": (0.5, "IoU from which the lower score is dropped"),
    "nms.max_detections": (300, "detections kept a frame"),
    "nms.pre_nms_top_k": (1000, "(cell, class) pairs that enter"),
    "score.size_bins": (
        {"<8": (0, 8), "8-16": (8, 16), "16-32": (16, 32), ">32": (32, 100000)},
        "name -> from, to: sides of a square as large as the object, in pixels of the file",
    ),
    "log.tensorboard": (False, "also write event files; pip install 'tinyjax[tensorboard]'"),
    "log.wandb": ("", "also log to this project of W&B; pip install 'tinyjax[wandb]'"),
}


_OF_BOXES = (
    "model.strides",
    "model.neck_width",
    "model.neck_repeats",
    "data.format",
    "data.slices",
    "augment.",
    "loss.",
    "nms.",
    "score.",
)
CLASSIFIER: dict[str, tuple[Any, str]] = {
    **{path: row for path, row in DETECTOR.items() if not path.startswith(_OF_BOXES)},
    "task": ("classify", "say what the whole image is of"),
    "data.format": ("folder", "a folder of images for each class; list, or tfds"),
    "crop_size": ((96, 96), "random views of training, in pixels; prediction is on whole images"),
    "batch": (64, "images a step"),
    "augment.flip": (0.5, "probability of a mirror image, left to right"),
    "augment.area": (0.25, "smallest part of the image that a view is taken from"),
    "augment.aspect": (0.58, "log range of width over height: 9/16 to 16/9"),
    "augment.contrast": (0.4, "log range of the gain"),
    "augment.brightness": (0.1, "range of the offset; 1 is the full gray range"),
    "augment.noise": (0.0, "largest standard deviation, same unit"),
    "augment.invert": (0.0, "probability of turned polarity"),
    "augment.mixup": (0.0, "coefficient of the Beta law of blends; 0: none"),
    "augment.cutmix": (0.0, "coefficient of the Beta law of pasted pieces; 0: none"),
    "predict.flip": (False, "predict on the mirror image, too, and average the logits"),
    "loss.label_smoothing": (0.1, "part of a label that is spread over all classes"),
    "loss.class_balance": (0.5, "an image weighs (1 / images of its class) to this power"),
}


def detector() -> ConfigDict:
    """A detector's defaults as a config."""
    return _config(DETECTOR)


def classifier() -> ConfigDict:
    """A classifier's defaults as a config."""
    return _config(CLASSIFIER)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's files say of its config, with the defaults of what its version did not have."""
    found = copy.deepcopy(dict(config))
    table = CLASSIFIER if found.get("task") == "classify" else DETECTOR
    for path, (default, _) in table.items():
        *groups, name = path.split(".")
        group = found
        for part in groups:
            group = group.setdefault(part, {})
        group.setdefault(name, default)
    return found


def _config(table: dict[str, tuple[Any, str]]) -> ConfigDict:
    config: dict[str, Any] = {}
    for path, (default, _) in table.items():
        *groups, name = path.split(".")
        group = config
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = default
    # A misspelt field in a config file is an error; only dicts of one's own take new ones.
    locked = ConfigDict(config).lock()
    for path, (default, _) in table.items():
        if isinstance(default, dict):
            attrgetter(path)(locked).unlock()
    return locked
