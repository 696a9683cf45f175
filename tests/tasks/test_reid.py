"""The task of visible-infrared recognition: its data, fields and batches."""

import pytest

from tests.configs import reid
from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.tasks import reid as task
from tinyjax.training.validation import check_config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop_size": (64, 32)}, r"crop_size = \(64, 32\): the images have \(32, 16\)"),
        ({"sampler.identities": 7, "batch": 14}, "7 identities per batch, but only 6 for training"),
        ({"score.protocol": "all"}, "score.protocol = 'all': known: visible_to_infrared"),
    ],
)
def test_data_that_do_not_fit_the_config_are_rejected(fields, message, tmp_path):
    config = configs.with_fields(reid.get_config(), fields)
    training = task.load(config.data, config.data.train)
    suites = {"val": task.load(config.data, config.data.suites.val)}
    with pytest.raises(UserError, match=message):
        task.describe_data(training, suites, config, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 10}, "batch = 10, sampler.identities = 2: .* multiple of twice"),
        ({"triplet": "batchhard"}, "triplet = 'batchhard': did you mean 'batch_hard'"),
        ({"score.feature": "pool"}, "score.feature = 'pool': did you mean 'pooled'"),
        ({"model.pooling": "max"}, "model.pooling = 'max': .*known: mean, gem"),
        ({"model.path_blocks": 7}, "model.path_blocks = 7: give 0 to 6"),
        ({"fdr.block": 1}, "fdr.block = 1: give a block from 2 to 6"),
    ],
)
def test_invalid_fields_are_rejected(fields, message):
    config = configs.with_fields(reid.get_config(), fields)
    with pytest.raises(UserError, match=message):
        task.build(config, 6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subset.fraction", 0.5),
        ("subset.shots", 3),
        ("data.repeat_threshold", 0.1),
        ("data.stream", True),
    ],
)
def test_fields_that_recognition_does_not_use_are_rejected(field, value):
    config = configs.with_fields(reid.get_config(), {field: value})
    with pytest.raises(UserError, match=f"{field} = {value}: recognition draws images by identity"):
        check_config(config)


def test_a_batch_has_pairs_of_each_identity():
    config = reid.get_config()
    training = task.load(config.data, config.data.train)
    data = task.device_arrays(training)
    index = task.sample(0, 3, config, data)
    labels, modality = training.labels[index], training.inputs["modality"][index]
    assert modality.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert labels[:4].tolist() == labels[4:].tolist()
    assert len({*labels.tolist()}) == 2
