"""Starting weights, averages and the guard of evaluation, of recognition and pretraining runs."""

from functools import partial

import numpy as np
import pytest

from tests.recognition.recognition_runs import (
    pretraining_config,
    recognition_config,
    training_split,
    write_pretraining_run,
    write_recognition_run,
)
from tests.untrained import write_initial_weights
from tinyjax import average, evaluate
from tinyjax import config as configs
from tinyjax.core import Variables
from tinyjax.data.records import ClassificationSplit
from tinyjax.errors import UserError
from tinyjax.models import configured_architecture
from tinyjax.population.networks import build_network, weights_metadata
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import read_weights
from tinyjax.tasks import get_task
from tinyjax.train import train
from tinyjax.transfer.weight_averaging import average_paths

SINGLE_ID = run_folder.member_id({})
INFRARED = "backbone/infrared/"


def read_arrays(file):
    trees, _ = read_weights(file)
    return {**trees["params"], **trees["stats"]}


def build_reid(init, **fields):
    """A network of recognition with starting weights, and its arrays before the first step."""
    config = configs.with_fields(recognition_config(), {"init": str(init), **fields})
    network = build_network(config, Member("a", {}), get_task("reid"), training_split(config))
    return network, {**network.variables.params, **network.variables.stats}


# ---- starting weights


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return write_pretraining_run(tmp_path_factory.mktemp("pretrained") / "run")


def test_start_from_pretraining_has_a_new_class_layer(pretrained):
    stored = read_arrays(pretrained / "weights" / SINGLE_ID)
    network, arrays = build_reid(pretrained, **{"model.path_blocks": 4})
    for path, leaf in arrays.items():
        if path != "classifier/kernel":
            np.testing.assert_array_equal(leaf, stored[path])
    assert arrays["classifier/kernel"].shape == (24, 4)
    assert stored["classifier/kernel"].shape == (24, 3)
    assert any("classifier" in line and "starts from" in line for line in network.messages)


def test_start_from_the_same_identities_keeps_the_class_layer(tmp_path):
    run = write_recognition_run(tmp_path / "run")
    stored = read_arrays(run / "weights" / SINGLE_ID)
    _, arrays = build_reid(run, seed=1)
    assert arrays.keys() == stored.keys()
    np.testing.assert_array_equal(arrays["classifier/kernel"], stored["classifier/kernel"])
    changed = build_reid(run, seed=1, reinit=("classifier/.*",))[1]
    assert (changed["classifier/kernel"] != stored["classifier/kernel"]).any()


def test_start_from_a_classifier_copies_the_visible_path(tmp_path):
    config = configs.with_fields(
        configs.from_run({"task": "classify"}),
        {"model.backbone": recognition_config().model.backbone},
    )
    inputs = {"image": (64, 32, 3)}
    run = write_initial_weights(tmp_path / "run", config, ("ant", "bee"), inputs)
    stored = read_arrays(run / "weights" / SINGLE_ID)
    network, arrays = build_reid(run)
    for path, leaf in arrays.items():
        if path.startswith("backbone/"):
            np.testing.assert_array_equal(leaf, stored[path.replace(INFRARED, "backbone/")])
    assert any(path.startswith(INFRARED) for path in arrays)
    assert "are copies of the visible path" in "\n".join(network.messages)


def test_four_doubled_blocks_must_be_averaged_first(pretrained):
    with pytest.raises(UserError, match=r"average the copies, see tinyjax\.average --path-blocks"):
        build_reid(pretrained)


# ---- averages


@pytest.fixture
def small_sets(monkeypatch):
    """Pretraining on eight images of noise, without files."""
    rng = np.random.default_rng(0)
    split = ClassificationSplit(
        {"image": rng.integers(0, 256, (8, 64, 32, 3), np.uint8)},
        np.arange(8, dtype=np.int32) % 3,
        tuple(map(str, range(8))),
        ("ant", "bee", "cat"),
    )
    load = partial(lambda *args: (split, {"val": split}))
    monkeypatch.setattr("tinyjax.tasks.suites.load_splits", load)


def test_average_of_two_paths_is_a_start_of_recognition(tmp_path, small_sets):
    config, run = pretraining_config(), write_pretraining_run(tmp_path / "run")
    (run / "results.csv").write_text("member,suite\n")
    assert average.main(["--workdir", str(run), "--path-blocks", "1", "--batches", "2"]) == 0
    trees, metadata = read_weights(run / "averages" / "paths-1")
    assert metadata["config"]["model"]["path_blocks"] == 1
    assert metadata["average"] == {"members": SINGLE_ID, "path_blocks": 1}
    stored, _ = read_weights(run / "weights" / SINGLE_ID)
    expected = average_paths(Variables(**stored), configured_architecture(config.model), 1)
    for path, leaf in trees["params"].items():
        np.testing.assert_allclose(leaf, expected.params[path], atol=1e-7)
    # The running statistics are estimated again; those of the initial weights are 0 and 1.
    assert any((trees["stats"][path] != leaf).any() for path, leaf in expected.stats.items())
    assert [row["average"] for row in read_rows(run / "averages" / "results.csv")] == ["paths-1"]

    _, arrays = build_reid(run / "averages" / "paths-1.safetensors")
    _, by_name = build_reid(run / "averages" / "paths-1")
    assert all((by_name[path] == leaf).all() for path, leaf in arrays.items())
    averaged = {**trees["params"], **trees["stats"]}
    for path, leaf in arrays.items():
        if path.startswith("backbone/"):
            np.testing.assert_array_equal(leaf, averaged[path])


def test_networks_without_two_copies_cannot_be_averaged(tmp_path, small_sets):
    run = write_recognition_run(tmp_path / "run")
    (run / "results.csv").write_text("member,suite\n")
    with pytest.raises(
        UserError, match=r"--path-blocks 1: .* two copies of 1 blocks; give less than 1"
    ):
        average.main(["--workdir", str(run), "--path-blocks", "1"])


# ---- the guard against identities that were trained on


def test_weights_record_whom_they_and_their_starting_weights_were_trained_on(tmp_path):
    start = write_recognition_run(tmp_path / "run", split="pretrain")
    network, _ = build_reid(start)
    training = training_split(recognition_config())
    metadata = weights_metadata(network, get_task("reid"), training)
    assert metadata["trained_on"] == tuple(
        {
            "data_set": "synthetic, seed 0",
            "trial": 0,
            "identities": [f"{split}_{k:04d}" for k in range(4)],
        }
        for split in ("pretrain", "train")
    )


@pytest.mark.parametrize("inherited", [False, True])
def test_training_refuses_suites_with_trained_identities(inherited, tmp_path):
    config = recognition_config()
    if inherited:
        config.init = str(write_recognition_run(tmp_path / "start", split="test"))
    else:
        config.data.train.split = "test"
    message = "data.suites.val: synthetic, seed 0: 3 of 3 identities of this split were trained on"
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")


def test_evaluation_refuses_suites_with_trained_identities(tmp_path):
    run = write_recognition_run(tmp_path / "run")
    (run / "results.csv").write_text("member,suite\n")
    suites = tmp_path / "suites.py"
    suites.write_text(
        "from tests.recognition.recognition_runs import recognition_config\n"
        "def get_config(arg=None):\n"
        "    config = recognition_config()\n"
        "    config.data.suites = {'val': {'n': 3, 'split': 'test'},\n"
        "                          'seen': {'n': 2, 'split': 'train'}}\n"
        "    return config\n"
    )
    message = "data.suites.seen: synthetic, seed 0: 2 of 2 identities of this split were trained on"
    with pytest.raises(UserError, match=message):
        evaluate.main(["--workdir", str(run), "--suites", str(suites)])
    assert not (run / "evaluations").exists()
