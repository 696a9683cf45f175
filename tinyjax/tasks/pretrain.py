"""Task-oriented pretraining (TOPLight, CVPR 2023): a network with two paths learns classes from two
views of each image, as if two cameras had taken them.

Data and scores are those of classification. An image is predicted as the mean of both paths, of
which the infrared one reads it in gray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.core import ModelFunctions, Variables
from tinyjax.data.augmentation import normalize
from tinyjax.models.scaling import Architecture
from tinyjax.ops.gradient_reversal import reversal_strength
from tinyjax.recognition import augmentation, color, losses
from tinyjax.recognition.domain_heads import DomainHeads
from tinyjax.recognition.network import RecognitionNetwork
from tinyjax.tasks import classify, recognition_network

TERMS = ("identity", "consistency", "feature_consistency", "domain")


def build(
    config: ConfigDict, classes: int, supernet: Architecture | None = None
) -> RecognitionNetwork:
    """The network of a config. Raises UserError as `recognition_network.build` does."""
    heads = DomainHeads() if config.loss.domain else None
    return recognition_network.build(config, classes, supernet, heads)


def model_functions(
    config: ConfigDict,
    classes: Sequence[str],
    inputs: Mapping[str, tuple[int, ...]],
    supernet: Architecture | None = None,
    axes: Sequence[str] = (),
) -> ModelFunctions:
    """Training on two views of `config.crop_size` of each image, prediction on whole images.

    Args:
        inputs: {"image": (H, W, C)}, the shape of a sample.
        supernet: see `build_backbone`.
        axes: mesh axes that training batches are spread over; loss and metrics are then a shard's
            partial sums.

    Raises UserError as `build` does.
    """
    model, window = build(config, len(classes), supernet), tuple(config.crop_size)
    strengths = augmentation.used_strengths(config.augment)
    terms = [name for name in TERMS if config.loss[name]]

    def init(seed):
        return Variables(*models.init(model, seed, (1, *window, inputs["image"][-1]), (1,)))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        weight, labels = hyper["loss"], jnp.tile(batch["labels"], 2)
        strength = {name: hyper["augment"][name] for name in strengths}
        views = augmentation.augment_views(
            key, batch["image"], strength, window, config.views.shared_geometry, axes
        )
        ramp = jnp.maximum(weight["reversal_ramp"] * config.schedule.steps, 1)
        outputs, stats = models.apply(
            model, *variables, views, None, reversal_strength(hyper["step"], ramp), train=True,
            frozen_batchnorm=frozen_batchnorm, axes=axes, momentum=hyper.get("momentum"),
        )  # fmt: skip
        outputs["features"] = outputs["embedding"]
        weights = {name: weight[name] for name in terms}
        value, metrics = losses.pretraining_loss(
            outputs, labels, weights, weight["label_smoothing"], axes
        )
        correct = outputs["logits"].argmax(1) == labels
        return value, (stats, metrics | {"accuracy": correct.mean() / jax.lax.axis_size(axes)})

    @jax.jit
    def predict(variables, inputs):
        """image uint8 [B, H, W, C] -> logits f32[B, classes]."""
        x, size = normalize(inputs["image"]), len(inputs["image"])
        gray = jnp.broadcast_to(color.luminance(x), x.shape)
        x, modality = jnp.concatenate([x, gray]), jnp.repeat(jnp.arange(2, dtype=jnp.uint8), size)
        if config.predict.flip:
            x, modality = jnp.concatenate([x, x[:, :, ::-1]]), jnp.tile(modality, 2)
        outputs, _ = models.apply(model, *variables, x, modality, train=False)
        return {"logits": outputs["logits"].reshape(-1, size, len(classes)).mean(0)}

    return ModelFunctions(init, loss, predict)


TASK = replace(
    classify.TASK,
    name="pretrain",
    compile_seconds=40.0,
    build=build,
    model_functions=model_functions,
)
