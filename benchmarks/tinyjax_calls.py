"""Networks of tinyjax: functions that build the call of a training step or of a prediction."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from benchmarks.common import (
    CLASSES,
    IDENTITIES,
    IDENTITIES_PER_BATCH,
    MARGIN,
    SIDE,
    random_images,
    random_pairs,
)
from benchmarks.flax_conv import use_flax_conv

DETECTOR = "configs/hit_uav.py"
IMAGE_SHAPE, CLASS_NAMES = (256, 320, 1), ("person", "car", "bicycle")  # of HIT-UAV
HYPER = {"seed": 0, "lr": 0.01, "weight_decay": 1e-4, "ema": 0.999}


def classification_step(
    net: str, batch: int, flax_conv: bool = False, members: int = 0, batching: str = "vmap"
) -> Callable[[], Any]:
    """Build a call of one training step of a classifier, see `make_classification`.

    flax_conv: use `flax.linen.Conv`.
    """
    from tinyjax.run import runtime

    runtime.tune_allocator()
    return _compile_step(*make_classification(net, batch, members, batching), flax_conv)


def make_classification(
    net: str,
    batch: int,
    members: int = 0,
    batching: str = "vmap",
    side: int = SIDE,
    dtype: str = "float32",
) -> tuple[Callable, Any, dict[str, Any], dict[str, Any]]:
    """Return the training step of a classifier and its arguments: state, data, hyperparameters.

    The step consists of forward and backward pass, gradient norm, clipping, SGD with Nesterov
    momentum and weight decay, EMA, and the divergence guard. No augmentation.

    Args:
        members: size of the population, each member with its own copy of the batch; 0: a single
            network.
        batching: see `batch_step`.
        side: of the images, in pixels.
        dtype: of the activations.
    """
    import jax
    import jax.numpy as jnp

    images, labels = random_images(batch, side)
    data = {"image": jnp.asarray(images, dtype), "labels": jnp.asarray(labels)}
    step, state, hyper = make_classifier_step(net, dtype, batching)
    if not members:
        return step, state, data, hyper
    state, data, hyper = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), (state, data, hyper)
    )
    return batch_step(step, batching), state, data, hyper


def batch_step(step: Callable, batching: str) -> Callable:
    """Batch a step over members, the first axis of each argument.

    batching: the method of `batch_members`, with the size of chunks as in "wide:8".
    """
    from tinyjax.population.member_batching import batch_members

    method, _, chunk_size = batching.partition(":")
    batched = batch_members(lambda member, _: step(*member), method, int(chunk_size or 0))
    return lambda *trees: batched(trees, None)


def detection_step(
    batch: int,
    flax_conv: bool = False,
    fields: Mapping[str, Any] | None = None,
    config: str = DETECTOR,
) -> Callable[[], Any]:
    """Build a call of one step of a config, with its augmentation, loss and optimizer, on random
    images.

    fields: config fields to change, such as `freeze`. config: its file and arguments.
    """
    from tinyjax.run import runtime

    runtime.tune_allocator()
    step, state, data, hyper = _make_detector_step(batch, fields or {}, config)
    return _compile_step(step, state, data, hyper, flax_conv)


def recognition_step(
    net: str, path_blocks: int, batch: int, size: tuple[int, int], augmented: bool = False
) -> Callable[[], Any]:
    """Build a call of one step of visible-infrared recognition, see `make_recognition_step`."""
    from tinyjax.run import runtime

    runtime.tune_allocator()
    step, state, data, hyper = make_recognition_step(net, path_blocks, batch, size, augmented)
    return _compile_step(step, state, data, hyper, flax_conv=False)


def detection_inference(config: str = DETECTOR) -> Callable[[], Any]:
    """Build a call that predicts the boxes in one image, with initial weights."""
    from tinyjax.run import runtime

    runtime.tune_allocator()

    import jax

    from tinyjax import config as configs
    from tinyjax.tasks.detect import model_functions

    model = model_functions(configs.load(config), CLASS_NAMES, {"image": IMAGE_SHAPE})
    variables = jax.jit(model.init)(0)
    image = np.random.default_rng(0).integers(0, 255, (1, *IMAGE_SHAPE), np.uint8)
    program = jax.jit(model.predict).lower(variables, {"image": image}).compile()
    return lambda: program(variables, {"image": image})["scores"].block_until_ready()


def detection_flops(batch: int, fields: Mapping[str, Any]) -> float:
    """Return the FLOPs of `detection_step`'s step, as XLA counts them in the compiled program."""
    import jax

    step, *arguments = _make_detector_step(batch, fields)
    cost = jax.jit(step).lower(*arguments).compile().cost_analysis()
    return cost["flops"] if cost else float("nan")


def inference(net: str, flax_conv: bool = False) -> Callable[[], Any]:
    """Build a call that computes the logits of one image."""
    from tinyjax.run import runtime

    runtime.tune_allocator()

    import jax
    import jax.numpy as jnp

    from tinyjax import models
    from tinyjax.models.classifier import Classifier

    model = Classifier(models.build(net, CLASSES))
    params, stats = models.init(model, 0, (1, SIDE, SIDE, 3))
    x = jnp.asarray(random_images(1)[0])

    def predict(params, stats, x):
        return models.apply(model, params, stats, x, train=False)[0]

    with use_flax_conv() if flax_conv else nullcontext():
        program = jax.jit(predict).lower(params, stats, x).compile()
    return lambda: program(params, stats, x).block_until_ready()


def make_classifier_step(net: str, dtype: str = "float32", batching: str = "vmap"):
    """Return the step of a classifier of float images, its initial state and hyperparameters.

    dtype: of the activations. batching: the method that the step is to be batched by.
    """
    import jax
    import jax.numpy as jnp

    from tinyjax import models
    from tinyjax.core import ModelFunctions, Variables
    from tinyjax.models.classifier import Classifier
    from tinyjax.tasks.classify import cross_entropy

    model = Classifier(models.build(net, CLASSES, dtype=dtype))

    def init(seed):
        return Variables(*models.init(model, seed, (1, SIDE, SIDE, 3)))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        logits, stats = models.apply(model, *variables, batch["image"], train=True)
        targets = jax.nn.one_hot(batch["labels"], CLASSES)
        return cross_entropy(logits, targets, jnp.float32(0.1)), (stats, {})

    functions = ModelFunctions(init, loss, lambda *_: {})
    step, state = _make_step(functions, "nesterov", batching=batching)
    return step, state, jax.tree.map(jnp.asarray, HYPER)


def make_recognition_step(
    net: str, path_blocks: int, batch: int, size: tuple[int, int], augmented: bool
):
    """Return the step of the default config of recognition with the layers of torch's network: the
    last stride is 2. Also return its initial state, random images and hyperparameters.

    path_blocks: blocks that exist twice. augmented: with the default augmentation, else none.
    """
    import jax.numpy as jnp

    from tinyjax.config import recognizer
    from tinyjax.population.stack import hyper_arrays
    from tinyjax.recognition.augmentation import SWITCHES
    from tinyjax.tasks.reid import model_functions

    config = recognizer()
    config.model.backbone, config.model.path_blocks, config.model.last_stride = net, path_blocks, 2
    config.crop_size, config.batch, config.sampler.identities = size, batch, IDENTITIES_PER_BATCH
    config.loss.margin, config.loss.triplet_start = MARGIN, 0.0
    config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay = "sgd", 0.01, 5e-4
    if not augmented:
        config.augment.update({name: 0.0 for name in SWITCHES if name in config.augment})
    images, labels = random_pairs(batch, size)
    names = [str(identity) for identity in range(IDENTITIES)]
    model = model_functions(config, names, {"image": images.shape[1:], "modality": ()})
    step, state = _make_step(model, config.optimizer.name, config)
    data = {"image": jnp.asarray(images), "labels": jnp.asarray(labels)}
    return step, state, data, hyper_arrays(config)


def _make_detector_step(batch: int, fields: Mapping[str, Any], config_file: str = DETECTOR):
    """Return the step of a detector, its initial state, random images and hyperparameters."""
    import jax.numpy as jnp

    from tinyjax import config as configs
    from tinyjax.population.stack import hyper_arrays
    from tinyjax.tasks.detect import model_functions

    config, rng = configs.load(config_file), np.random.default_rng(0)
    config = configs.with_fields(config, fields)
    corners = rng.uniform(0, 200, (batch, 64, 2)).astype(np.float32)
    data = {
        "image": jnp.asarray(rng.integers(0, 255, (batch, *IMAGE_SHAPE), np.uint8)),
        "boxes": jnp.asarray(np.concatenate([corners, corners + 20], -1)),
        "labels": jnp.asarray(rng.integers(0, 3, (batch, 64)), jnp.int32),
        "valid": jnp.asarray(rng.random((batch, 64)) < 0.2),
        "ignore": jnp.zeros((batch, 64), bool),
    }
    model = model_functions(config, CLASS_NAMES, {"image": IMAGE_SHAPE})
    step, state = _make_step(model, config.optimizer.name, config)
    return step, state, data, hyper_arrays(config)


def _make_step(model, optimizer: str, config: Any = None, batching: str = "vmap"):
    """Return a step and its initial state.

    config: defines the frozen parameters; None: none. batching: see `batch_step`.
    """
    from tinyjax import step as steps
    from tinyjax.population import wide
    from tinyjax.transfer import freezing

    tx, variables = steps.make_optimizer(optimizer, 0.9, 0.999, 10.0), model.init(0)
    paths = [*variables.params, *variables.stats]
    trainable = steps.select_trainable(freezing.lr_multipliers(paths, config)) if config else None
    schedule = steps.make_schedule(1000, 10, 0.5, 0.1)
    gradient = wide.value_and_grad if batching.startswith("wide") else steps.VALUE_AND_GRAD
    step = steps.make_step(model, tx, schedule, trainable, value_and_grad=gradient)
    return step, steps.init_state(variables, tx, trainable)


def _compile_step(step, state, data, hyper: dict, flax_conv: bool) -> Callable[[], Any]:
    import jax

    with use_flax_conv() if flax_conv else nullcontext():
        program = jax.jit(step, donate_argnums=0).lower(state, data, hyper).compile()

    def call():
        nonlocal state
        state, metrics = program(state, data, hyper)
        return metrics["loss"].block_until_ready()

    return call
