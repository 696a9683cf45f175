"""configs/lvis.py on a miniature of LVIS v1."""

import json
import re

import numpy as np
import pytest

from tests.data.layouts import lvis_set
from tests.tiny_backbones import TINY
from tinyjax import api, evaluate
from tinyjax import config as configs
from tinyjax.run.csv_files import read_rows
from tinyjax.tasks import detect
from tinyjax.training.validation import check_config


def tiny_config(source):
    config = configs.load(
        f"configs/lvis.py:backbone={TINY},source={source},images=6,epochs=4,batch=2,repeat=0.5"
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
