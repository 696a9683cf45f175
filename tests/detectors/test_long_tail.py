"""Class-balanced weights by hand, and the distribution of the federated loss's classes; how both
reach the losses of the detectors.
"""

from functools import partial
from importlib import import_module
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.two_stage import SMALL, make_batch, make_model
from tests.tasks.test_detect import suite
from tinyjax import models
from tinyjax.config import detector, with_fields
from tinyjax.config.detectors import DETECTORS
from tinyjax.config.parsing import leaves_with_path
from tinyjax.detectors import faster_rcnn
from tinyjax.detectors.long_tail import (
    EQUAL_CLASSES,
    class_balanced_weights,
    class_terms,
    federated_mask,
    loss_arrays,
)
from tinyjax.errors import UserError
from tinyjax.population.stack import _hypers, may_vary
from tinyjax.tasks import detect
from tinyjax.training.validation import check_config

COUNTS = np.array([1, 4, 9, 16, 25, 36])  # square roots 1 .. 6


def test_class_balanced_weights():
    weights = class_balanced_weights(np.array([5, 50, 500]), 0.999)
    expected = np.array([0.200400, 0.0204942, 0.00254051])
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(class_balanced_weights(np.array([5, 500]), 0.0), 1)
    weights = class_balanced_weights(np.array([10, 0, 30]), 0.999999)
    np.testing.assert_allclose(weights, [1.5, 0, 0.5], rtol=1e-4)
    assert class_balanced_weights(np.zeros(2), 0.9).tolist() == [0, 0]


@partial(jax.jit, static_argnames="num_classes")
def draw(seeds, labels, valid, num_classes, counts=COUNTS):
    keys = jax.vmap(jax.random.key)(seeds)
    return jax.vmap(
        lambda key: federated_mask(key, labels, valid, jnp.asarray(counts), num_classes)
    )(keys)


def masks(labels, num_classes, draws=20_000, **arguments):
    labels = jnp.array(labels)
    return np.asarray(
        draw(jnp.arange(draws), jnp.maximum(labels, 0), labels >= 0, num_classes, **arguments)
    )


def test_probabilities_are_proportional_to_the_root_of_the_counts():
    drawn = masks([[-1, -1]], 1)
    assert (drawn.sum(1) == 1).all()
    expected = np.arange(1, 7) / 21
    deviation = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (abs(drawn.mean(0) - expected) < 5 * deviation).all()


def test_present_classes_are_included_and_others_drawn_without_replacement():
    drawn = masks([[5, 5, -1], [2, 5, -1]], 4)
    assert drawn[:, [2, 5]].all()
    assert (drawn.sum(1) == 4).all()
    # two of the weights 1, 2, 4, 5: the first is i, or the first is j and the second i
    weights = np.array([1, 2, 4, 5])
    expected = [
        w / 12 + sum(v / 12 * w / (12 - v) for j, v in enumerate(weights) if j != i)
        for i, w in enumerate(weights)
    ]
    deviation = np.sqrt(np.multiply(expected, np.subtract(1, expected)) / len(drawn))
    assert (abs(drawn[:, [0, 1, 3, 4]].mean(0) - expected) < 5 * deviation).all()


@pytest.mark.parametrize("num_classes", [1, 3])
def test_more_present_classes_than_the_number_are_all_included(num_classes):
    drawn = masks([[0, 2, 4, 5]], num_classes, draws=50)
    assert (drawn == [True, False, True, False, True, True]).all()


def test_classes_without_images_are_not_drawn():
    drawn = masks([[-1]], 6, draws=50, counts=np.array([1, 0, 9, 0, 1, 1]))
    assert (drawn == [True, False, True, False, True, True]).all()
    assert masks([[1]], 9, draws=5).all()  # more than there are


def test_the_default_is_50_classes_and_roots_of_the_counts():
    """Of 51 classes without an object, two are left out, usually the one with a single image."""
    counts = np.full(52, 400)
    counts[7] = 1
    drawn = masks([[3]], 50, draws=500, counts=counts)
    assert (drawn.sum(1) == 50).all()
    assert drawn[:, 3].all()
    # It is left out if each of the 49 draws, of n others with weight 20 and this one, is another.
    left_out = np.prod([20 * n / (20 * n + 1) for n in range(50, 1, -1)])  # 0.84
    deviation = np.sqrt(left_out * (1 - left_out) / len(drawn))
    assert abs((~drawn[:, 7]).mean() - left_out) < 5 * deviation
    default = federated_mask(
        jax.random.key(0), jnp.array([3]), jnp.array([True]), jnp.array(counts)
    )
    np.testing.assert_array_equal(default, drawn[0])


def test_presence_is_that_of_the_whole_batch():
    labels = jnp.array([[[0, 0]], [[3, 1]]])  # two shards
    valid = jnp.array([[[True, False]], [[True, False]]])
    shard = partial(
        federated_mask, jax.random.key(0), image_counts=jnp.array(COUNTS), num_classes=2,
        axes=("data",),
    )  # fmt: skip
    drawn = jax.vmap(lambda a, b: shard(labels=a, valid=b), axis_name="data")(labels, valid)
    np.testing.assert_array_equal(drawn, [[True, False, False, True, False, False]] * 2)


# ---- from the config and the training set to the losses


def long_tail_config(name="point", balance=0.0, classes=0):
    """A small detector of any name."""
    config = detector(name)
    known = {path for path, _ in leaves_with_path(config.to_dict())}
    fields = {path: value for path, value in SMALL.items() if path in known}
    balanced = {"loss.class_balance": balance, "loss.federated_classes": classes}
    return with_fields(config, {**fields, **balanced})


def test_terms_of_a_batch():
    batch = {"labels": jnp.array([[3, 0]]), "valid": jnp.array([[True, False]])}
    key, config = jax.random.key(0), long_tail_config()
    arrays = loss_arrays(COUNTS, 10 * COUNTS, config)
    assert class_terms(key, batch, arrays, config) is EQUAL_CLASSES
    config = long_tail_config(balance=0.99, classes=2)
    arrays = loss_arrays(COUNTS, 10 * COUNTS, config)
    terms = class_terms(key, batch, arrays, config)
    expected = 0.01 / (1 - 0.99 ** (10 * COUNTS))
    np.testing.assert_allclose(terms.weight, expected / expected.mean(), rtol=1e-6)
    assert terms.included[3]
    assert terms.included.sum() == 2


def test_each_member_has_the_weights_of_its_own_training_set():
    """The first member uses the only image, which has a person; the second uses none."""
    split = suite()
    config = with_fields(detector(), {"loss.class_balance": 0.9})
    networks = [
        SimpleNamespace(config=config, sample_mask=np.array([used])) for used in (True, False)
    ]
    hypers = _hypers(networks, [{}, {}], [], detect.TASK, split)
    assert [hyper["loss"]["class_weights"].tolist() for hyper in hypers] == [[1, 0], [0, 0]]
    assert [hyper["loss"]["image_counts"].tolist() for hyper in hypers] == [[1, 0], [0, 0]]
    assert float(hypers[0]["loss"]["class_balance"]) == pytest.approx(0.9)


def test_members_differ_in_weights_but_not_in_the_number_of_classes():
    assert may_vary("loss.class_balance")
    assert not may_vary("loss.federated_classes")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("loss.class_balance", 1.0, "loss.class_balance = 1.0: give 0 or more, less than 1"),
        ("loss.federated_classes", -1, "loss.federated_classes = -1: give 0 or more"),
    ],
)
def test_invalid_values_are_rejected(field, value, message):
    config = with_fields(detector(), {field: value})
    config.data.suites = {"val": {"split": "val"}}
    with pytest.raises(UserError) as error:
        check_config(config)
    assert message in str(error.value)


# The loss of faster_rcnn_mobilenet is that of faster_rcnn.
@pytest.mark.parametrize(
    "name",
    [
        name if name == "retinanet" else pytest.param(name, marks=pytest.mark.slow)
        for name in DETECTORS
        if name != "faster_rcnn_mobilenet"
    ],
)
def test_detectors_use_the_weights_and_the_classes(name):
    """Only classes of the batch's objects have a gradient, and their weights change the loss."""
    module = import_module(f"tinyjax.detectors.{name}")
    config = long_tail_config(name, balance=0.5, classes=1)
    model, (params, stats) = make_model(module, config)
    batch = make_batch() | {"labels": jnp.full((4, 4), 2)}
    outputs = {path for path in params if "class_out" in path and path.endswith("bias")}

    @jax.jit
    @jax.value_and_grad
    def loss(biases, weight):
        apply = partial(models.apply, model, {**params, **biases}, stats, train=True)
        arrays = {"class_weights": jnp.array([1, 1, weight]), "image_counts": jnp.ones(3)}
        weights = {**config.loss.to_dict(), **arrays}
        return module.loss(apply, batch, jax.random.key(0), weights, config)[0]

    biases = {path: params[path] for path in outputs}
    value, gradient = loss(biases, 1.0)
    assert loss(biases, 2.0)[0] > value
    for path in outputs:
        background = int(name.endswith("rcnn"))
        by_class = np.asarray(gradient[path]).reshape(-1, background + 3)
        assert (by_class[:, :-1] == 0).all()
        assert (by_class[:, -1] != 0).all()


def test_scores_of_box_heads_are_sigmoids_if_the_loss_is_federated():
    config = long_tail_config("faster_rcnn", classes=2)
    logits = jnp.array([[[5.0, -1, 2]]])
    boxes = jnp.array([[[[1.0, 2, 9, 9], [20, 20, 30, 30]]]])
    detections = jax.jit(lambda *x: faster_rcnn.decode(x, (32, 32), config))(
        logits, boxes, jnp.ones((1, 1), bool)
    )
    expected = 1 / (1 + np.exp([-2.0, 1]))
    np.testing.assert_allclose(detections["scores"][0, :2], expected, rtol=1e-6)
    assert detections["labels"][0, :2].tolist() == [1, 0]


def test_first_scores_are_low_if_the_loss_is_federated():
    for classes, bias in ((0, 0.0), (2, -np.log(99))):
        config = long_tail_config("faster_rcnn", classes=classes)
        params = make_model(faster_rcnn, config)[1][0]
        np.testing.assert_allclose(params["box_head1/class_out/bias"], bias, rtol=1e-6)
