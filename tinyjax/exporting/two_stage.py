"""Raw files of two-stage detectors: a network in several files, without control flow.

    rpn        image -> logits_<level> [N, h, w, A] and deltas_<level> [N, h, w, 4 A] of the region
               proposal network, and features_<stride> [N, h, w, D] that RoIs are pooled from
    head1, ..  rois [R, P, P, D], features of RoIs -> logits [R, classes + 1] and deltas [R, 4 K] of
               the box head of each stage

Between them, the reader selects proposals and pools RoIs; `make_predict` does so with the functions
of the detector. A level is named after its stride, or after its number if strides are equal.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from tinyjax.detectors import faster_rcnn
from tinyjax.detectors.anchors import make_levels
from tinyjax.detectors.rpn import make_proposals
from tinyjax.tasks import detect

RPN = "rpn"

Call = Callable[..., dict[str, Array]]
Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def is_two_stage(config: ConfigDict) -> bool:
    """Whether a config has a detector with box heads."""
    return config.task == "detect" and "roi" in config


def components(config: ConfigDict) -> tuple[str, ...]:
    """The names of the files of a network."""
    stages = len(config.roi.foreground_ious) if "foreground_ious" in config.roi else 1
    return RPN, *(f"head{n}" for n in range(1, stages + 1))


def level_names(config: ConfigDict) -> tuple[int, ...]:
    """The level of each output of the RPN, in the order of the network."""
    strides = tuple(config.model.strides)
    return strides if len({*strides}) == len(strides) else tuple(range(len(strides)))


def rpn_function(apply: Callable[..., Any], config: ConfigDict) -> Call:
    """The function of the first file. apply: (image, method=..) -> outputs of the network."""

    def call(image):
        features, logits, deltas = apply(image, method="first_stage")
        outputs = {f"features_{stride}": level for stride, level in features.items()}
        for name, levels in (("logits", logits), ("deltas", deltas)):
            for label, stride, level in zip(
                level_names(config), config.model.strides, levels, strict=True
            ):
                h, w = (-(-side // stride) for side in image.shape[1:3])
                outputs[f"{name}_{label}"] = level.reshape(image.shape[0], h, w, -1)
        return outputs

    return call


def head_function(apply: Callable[..., Any], component: str) -> Call:
    """The function of a box head. apply: (RoIs, stage, method=..) -> outputs of the network."""
    stage = stage_index(component)

    def call(rois):
        logits, deltas = apply(rois[None], stage, method="classify")
        return {"logits": logits[0], "deltas": deltas[0].reshape(rois.shape[0], -1)}

    return call


def head_inputs(apply: Callable[..., Any], network: Any, component: str) -> Callable[..., Array]:
    """The function from images [N, H, W, C] to what a box head reads: [N T, P, P, D], of T
    proposals per image.
    """
    last = stage_index(component)

    def call(image):
        size = image.shape[1:3]
        levels, _, _, proposals = apply(image, method="propose")
        rois = proposals.boxes
        for n in range(last):
            _, deltas = apply(levels, rois, n, method="predict")
            rois = faster_rcnn.refine(rois, deltas, network.stages[n], size)[:, :, 0]
        pooled = faster_rcnn.pool(levels, rois, network.roi)
        return pooled.reshape(-1, *pooled.shape[2:])

    return call


def stage_index(component: str) -> int:
    """The index of the stage of head1, head2, .."""
    return int(component.removeprefix("head")) - 1


def make_predict(
    runs: Mapping[str, Predict], config: ConfigDict, classes: int, image_size: tuple[int, int]
) -> Callable[[np.ndarray], Mapping[str, Any]]:
    """The run's prediction from the files of a network.

    runs: by component, for any number of images or RoIs.
    """
    network: Any = detect.build(config, classes)
    detector = detect.get_detector(config)

    @jax.jit
    def propose(outputs):
        def flatten(name, width):
            maps = [outputs[f"{name}_{level}"] for level in level_names(config)]
            return jnp.concatenate([x.reshape(len(x), -1, width) for x in maps], 1)

        levels = make_levels(image_size, network.strides, network.anchors)
        logits, deltas = flatten("logits", 1)[..., 0], flatten("deltas", 4)
        return make_proposals(logits, deltas, image_size, levels, network.proposals)

    pool = jax.jit(partial(faster_rcnn.pool, roi=network.roi))
    run_stages = partial(faster_rcnn.run_stages, stages=network.stages, image_size=image_size)
    decode = jax.jit(lambda outputs: detector.decode(outputs, image_size, config))

    def predict(images):
        outputs = runs[RPN](images)
        prefix = "features_"
        levels = {int(k.removeprefix(prefix)): x for k, x in outputs.items() if prefix in k}

        def predict_stage(rois, n):
            pooled = np.asarray(pool(levels, rois))
            heads = runs[f"head{n + 1}"](pooled.reshape(-1, *pooled.shape[2:]))
            lead = rois.shape[:2]
            return heads["logits"].reshape(*lead, -1), heads["deltas"].reshape(*lead, -1, 4)

        return decode(run_stages(propose(outputs), predict=predict_stage))

    return predict
