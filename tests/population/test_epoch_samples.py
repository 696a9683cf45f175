"""The samples of a member's epochs: its subset, with repeats."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from tinyjax.population import input_pipeline
from tinyjax.population.networks import epoch_samples, sample_mask
from tinyjax.population.stack import _subsets

# Class 0 is in 2 images, class 1 in 14.
LABELS = [np.array([0]) if i in (3, 12) else np.array([1]) for i in range(16)]
TASK = SimpleNamespace(
    sample_labels=lambda split: LABELS,
    subset_arrays=None,
    stream_source=lambda split, config: lambda i, rng: {"image": i},
)
TRAINING = SimpleNamespace(names=tuple("abcdefghijklmnop"))


def make_config(fraction=1.0, threshold=0.0, seed=0, stream=False):
    return ConfigDict(
        {
            "seed": seed,
            "batch": 2,
            "data": {"repeat_threshold": threshold, "stream": stream, "workers": 0},
            "subset": {"fraction": fraction, "shots": 0},
        }
    )


def make_network(**fields):
    config = make_config(**fields)
    mask = sample_mask(config, TASK, TRAINING)
    samples = epoch_samples(config, TASK, TRAINING, mask)
    return SimpleNamespace(config=config, sample_mask=mask, epoch_samples=samples)


def test_without_a_threshold_each_sample_once():
    assert make_network().epoch_samples.tolist() == [*range(16)]
    network = make_network(fraction=0.5)
    np.testing.assert_array_equal(network.epoch_samples, np.flatnonzero(network.sample_mask))


def test_repeats_in_a_subset_depend_on_its_own_frequencies():
    # With both images of class 0 among 16, f = 1/8; with one of them among 8, too.
    whole = make_network(threshold=0.5).epoch_samples
    np.testing.assert_array_equal(np.bincount(whole)[[3, 12]], 2)
    assert len(whole) == 18
    halves = [make_network(fraction=0.5, threshold=0.5, seed=seed) for seed in range(20)]
    for network in halves:
        rare = network.sample_mask[[3, 12]].sum()
        factor = max(1, np.sqrt(0.5 / (rare / 8))) if rare else 1
        assert abs(len(network.epoch_samples) - (8 + rare * (factor - 1))) < 1
        np.testing.assert_array_equal(
            np.unique(network.epoch_samples), np.flatnonzero(network.sample_mask)
        )
    assert {int(n.sample_mask[[3, 12]].sum()) for n in halves} == {0, 1, 2}


def test_members_with_epochs_of_different_length_share_a_shape():
    networks = [make_network(threshold=0.3, seed=seed) for seed in range(8)]
    lengths = [len(network.epoch_samples) for network in networks]
    assert set(lengths) == {17, 18}  # 2 sqrt(0.3 * 8) + 14 = 17.1
    rows = [subset["indices"] for subset in _subsets(networks, TASK, TRAINING)]
    assert {row.shape for row in rows} == {(18,)}
    assert [(row >= 0).sum() for row in rows] == lengths
    assert _subsets([make_network()] * 2, TASK, TRAINING) == [{}, {}]
    assert _subsets([make_network(threshold=0.3, stream=True)], TASK, TRAINING) == [{}]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_streamed_epochs_have_the_same_repeats(threshold):
    config = make_config(threshold=threshold, stream=True)
    layout = SimpleNamespace(batch_placement=lambda batch: (None, lambda rows: rows))
    batches = input_pipeline.make_input_pipeline(TASK, TRAINING, config, 0, layout)()
    expected = make_network(threshold=threshold).epoch_samples
    epoch = np.concatenate([next(batches).rows["image"] for _ in range(len(expected) // 2)])
    np.testing.assert_array_equal(np.sort(epoch), expected)
