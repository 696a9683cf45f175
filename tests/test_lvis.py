"""configs/lvis.py on a miniature of LVIS v1."""

import json
import re

import numpy as np
import pytest

from tests.data.layouts import lvis_set
from tests.tiny_backbones import TINY
from tinyjax import api, evaluate, prepare
from tinyjax import config as configs
from tinyjax.population.networks import epoch_samples
from tinyjax.population.options import SINGLE_RUN
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import read_weights
from tinyjax.tasks import detect
from tinyjax.training.validation import check_config


def tiny_config(source, arguments="federated=2"):
    config = configs.load(
        f"configs/lvis.py:backbone={TINY},source={source},images=6,epochs=4,batch=2,repeat=0.5,"
        f"{arguments}"
    )
    config.data.common.size, config.crop_size = (64, 64), (64, 64)
    config.schedule.steps, config.schedule.warmup = 6, 2
    config.update({"log_every": 1, "save_every": 3, "eval_every": 6})
    return config


def test_config_reads_the_published_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYJAX_DATA", str(tmp_path))
    lvis_set.write(tmp_path / "lvis")
    config = configs.load("configs/lvis.py")
    check_config(config)
    assert (config.data.repeat_threshold, config.score.protocol) == (0.001, "lvis")
    assert (config.loss.federated_classes, config.loss.class_balance) == (50, 0)
    assert config.schedule.steps == 24 * (100_170 // 64)
    training = detect.load(config.data, config.data.train)
    val = detect.load(config.data, config.data.suites.val, training.classes)
    assert training.inputs["image"].shape == (6, 320, 320, 3)
    assert training.classes == tuple(lvis_set.CATEGORIES.values())
    assert val.truth["images"][0]["neg_category_ids"] == [1, 4]
    # a perfect detector: all classes with objects have an AP of 1
    boxes = np.clip(val.boxes, 0, 320)
    predictions = {
        "boxes": boxes, "scores": val.valid.astype(np.float32), "labels": val.labels
    }  # fmt: skip
    (scores,) = detect.score([predictions], val, config)
    assert (scores["AP"], scores["APr"], scores["AP fixed"]) == pytest.approx((1, 1, 1))


@pytest.mark.slow
def test_training_on_lvis(tmp_path):
    """A streamed run with repeated images, and its evaluation."""
    source = lvis_set.write(tmp_path / "lvis")
    config, folder = tiny_config(source), tmp_path / "run"
    assert api.train(config, folder) == 0
    (row,) = read_rows(folder / "results.csv")
    columns = {"AP", "APr", "APc", "APf", "APs", "AP fixed", "AR300", "AP/cart"}
    assert columns <= row.keys()
    assert float(row["images"]) == 3
    # Groups by the frequency in the labels, not by the few training images.
    groups = {"APr": "AP/cart", "APc": "AP/banana", "APf": "AP/aardvark"}
    assert [float(row[name]) for name in groups] == pytest.approx(
        [float(row[name]) for name in groups.values()]
    )
    # f of banana and cart 1/6: 4 + 2 sqrt(0.5 * 6) = 7.5
    log = (folder / "log.txt").read_text()
    assert re.search("an epoch has [78] samples of 6 training images", log)
    assert evaluate.main(["--workdir", str(folder)]) == 0
    (again,) = read_rows(folder / "evaluations" / "last.csv")
    assert again["AP"] == row["AP"]
    assert again["AP fixed"] == row["AP fixed"]

    # Training from the converted set is the same.
    assert prepare.main([str(source), "--to", str(tmp_path / "records")]) == 0
    config = tiny_config(tmp_path / "records")
    config.data.format = "arrayrecord"
    assert api.train(config, tmp_path / "converted") == 0
    assert read_rows(tmp_path / "converted" / "results.csv") == [row]


def test_converted_set_has_the_federated_labels_and_repeats(tmp_path):
    source = lvis_set.write(tmp_path / "lvis")
    assert prepare.main([str(source), "--to", str(tmp_path / "records")]) == 0
    config, converted = tiny_config(source), tiny_config(tmp_path / "records")
    converted.data.format = "arrayrecord"
    for arguments in (config.data.train, config.data.suites.val):
        first, second = (detect.load(c.data, arguments) for c in (config, converted))
        assert first.truth["categories"] == second.truth["categories"]
        assert [c["frequency"] for c in second.truth["categories"]] == ["f", "c", "r", "r"]
        assert first.truth["annotations"] == second.truth["annotations"]
        for a, b in zip(first.truth["images"], second.truth["images"], strict=True):
            assert a == b
            assert {"neg_category_ids", "not_exhaustive_category_ids"} <= b.keys()
        mask = np.ones(len(first.names), bool)
        epochs = [epoch_samples(config, detect.TASK, split, mask) for split in (first, second)]
        np.testing.assert_array_equal(*epochs)
        arrays = [detect.loss_arrays(split, mask, config) for split in (first, second)]
        for name in arrays[0]:
            np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
    assert any(image["neg_category_ids"] for image in second.truth["images"])
    assert any(image["not_exhaustive_category_ids"] for image in second.truth["images"])


def first_losses(folder):
    rows = read_rows(folder / "metrics.csv")
    return {row["metric"]: float(row["value"]) for row in rows if row["step"] == "1"}


@pytest.mark.slow
def test_a_second_phase_trains_the_last_layer_with_balanced_weights(tmp_path):
    source, folder = lvis_set.write(tmp_path / "lvis"), tmp_path / "run"
    config = tiny_config(source, "federated=2,retrain=3,balance=0.9")
    assert api.train(config, folder) == 0
    before, after = (
        read_weights(path / "weights" / SINGLE_RUN.id)[0] for path in (folder / "phase1", folder)
    )
    changed = {
        path
        for tree in ("params", "stats")
        for path, leaf in before[tree].items()
        if (leaf != after[tree][path]).any()
    }
    assert changed == {"head/class_out/kernel", "head/class_out/bias"}

    # The same as a run of its own, and without the weights: only the loss of classes differs.
    config = tiny_config(source)
    config.init, config.freeze = str(folder / "phase1"), ("all but last layer",)
    config.schedule.steps, config.schedule.warmup = 3, 0
    assert api.train(config, tmp_path / "equal") == 0
    balanced, equal = first_losses(folder / "phase2"), first_losses(tmp_path / "equal")
    assert balanced["box_loss"] == equal["box_loss"]
    assert abs(balanced["class_loss"] / equal["class_loss"] - 1) > 0.01


@pytest.mark.slow
def test_members_in_memory_have_their_own_repeats(tmp_path):
    source = lvis_set.write(tmp_path / "lvis")
    config = tiny_config(source)
    config.data.stream = False
    file, text = tmp_path / "sweep.py", json.dumps(configs.to_json(config))
    file.write_text(
        "from tinyjax.config import from_json\n"
        f"def get_config(arg=None): return from_json({text})\n"
        "def get_hyper(hyper): return hyper.product([hyper.sweep('seed', [0, 1]),"
        " hyper.sweep('subset.fraction', [0.7, 1.0])])\n"
    )
    assert api.train(str(file), tmp_path / "run") == 0
    assert len(read_rows(tmp_path / "run" / "results.csv")) == 4
