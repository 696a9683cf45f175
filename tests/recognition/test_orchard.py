"""Places of an orchard: a real visible-infrared set, and the gain of training over hand-made
features on it.
"""

from pathlib import Path

import numpy as np
import pytest

from tinyjax import config as configs
from tinyjax.run.csv_files import read_rows
from tinyjax.tasks import get_task
from tinyjax.train import main as train_main

ORCHARD = Path(__file__).parents[2] / "configs" / "toplight" / "orchard.py"
TASK = get_task("reid")


@pytest.fixture
def config(data_root):
    return configs.load(f"{ORCHARD}:source={data_root}/orchard_vnir/orchard_vnir.zip").unlock()


@pytest.mark.parametrize("trial", [1, 2])
def test_lists_of_both_trials(config, trial):
    config.data.common.trial = trial
    training = TASK.load(config.data, config.data.train)
    test = TASK.load(config.data, config.data.suites.test)
    assert (len(training.classes), len(test.classes)) == (80, 96)
    assert not {*training.classes} & {*test.classes}
    for split, count in ((training, 640), (test, 768)):
        assert split.inputs["image"].shape == (2 * count, 48, 48, 3)
        assert np.bincount(split.inputs["modality"]).tolist() == [count, count]
    assert [*test.protocols] == ["visible_to_infrared", "infrared_to_visible"]


@pytest.mark.slow
def test_training_beats_hand_made_features(config, data_root, tmp_path):
    """By 10 points of mAP or more, in both trials."""
    spec = f"{ORCHARD}:source={data_root}/orchard_vnir/orchard_vnir.zip"
    assert train_main(["--config", spec, "--workdir", str(tmp_path)]) == 0
    trained = {row["member"]: float(row["mAP"]) for row in read_rows(tmp_path / "results.csv")}
    for row in read_rows(tmp_path / "members.csv"):
        config.data.common.trial = int(row["data.common.trial"])
        split = TASK.load(config.data, config.data.suites.test)
        features = gradient_histograms(split.inputs["image"])
        (scores,) = TASK.score([{"embedding": features, "pooled": features}], split, config)
        assert 0.15 < scores["mAP"] < 0.2  # published with the set: 0.164
        assert trained[row["member"]] > scores["mAP"] + 0.1


def gradient_histograms(images: np.ndarray, cell: int = 8, bins: int = 9) -> np.ndarray:
    """HOG (Dalal and Triggs, CVPR 2005) of [N, H, W, 3], in blocks of 2 x 2 cells: [N, D]."""
    dy, dx = np.gradient(images.astype(np.float32).mean(-1), axis=(1, 2))
    angle = np.arctan2(dy, dx) % np.pi / np.pi * bins
    lower = np.floor(angle).astype(int)
    histograms = np.zeros((*angle.shape, bins), np.float32)
    for index, weight in ((lower, 1 - angle + lower), (lower + 1, angle - lower)):
        histograms += (index[..., None] % bins == np.arange(bins)) * weight[..., None]
    histograms *= np.hypot(dx, dy)[..., None]
    n, height, width, _ = histograms.shape
    cells = histograms.reshape(n, height // cell, cell, width // cell, cell, bins).sum((2, 4))
    corners = [cells[:, i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1)]
    blocks = np.concatenate(corners, -1)
    blocks /= np.linalg.norm(blocks, axis=-1, keepdims=True) + 1e-6
    return blocks.reshape(n, -1)
