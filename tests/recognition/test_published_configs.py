"""Each published config of recognition trains on a miniature of its data set, and every protocol
that docs/recognition.md names is scored.
"""

from pathlib import Path

import pytest

from tests.data.layouts import recognition_sets
from tests.tiny_backbones import MICRO_LIGHTCNN, TINY
from tinyjax import evaluate
from tinyjax.run.csv_files import read_rows
from tinyjax.train import main as train_main

CONFIGS = Path(__file__).parents[2] / "configs" / "toplight"
DIRECTIONS = ["visible_to_infrared", "infrared_to_visible"]
SYSU = ["all_single", "all_multi", "indoor_single", "indoor_multi"]
RETRIEVAL = ("R1", "R5", "R10", "R20", "mAP", "mINP")
MODALITY_GAP = ("mAP visible", "mAP infrared", "probe accuracy")
VERIFICATION = ("VR@1.0%", "VR@0.1%")
TRIALS = 10  # galleries that are drawn

pytestmark = pytest.mark.slow


def faces(root):
    """Oulu-CASIA's and BUAA-VisNir's layout by folders, with two images of each face."""
    for split, identities in (("train", range(1, 5)), ("test", range(5, 8))):
        for modality in ("VIS", "NIR"):
            names = [f"{split}/{modality}/P{n:03d}/{k}.png" for n in identities for k in range(2)]
            recognition_sets.write_images(root, names, modality == "NIR")


def train_and_evaluate(tmp_path, name, write, size=(32, 16), backbone=TINY, **arguments):
    """Train a published config for two steps and evaluate its suites; returns the run folder."""
    source, folder = tmp_path / "set", tmp_path / "run"
    write(source)
    arguments = {"batch": 8, "identities": 2, "steps": 2, "source": source, **arguments}
    text = ",".join(f"{key}={value}" for key, value in arguments.items())
    argv = [
        *("--config", f"{CONFIGS / name}.py:{text},backbone={backbone}"),
        *("--workdir", str(folder)),
        *(f"--config.{field}={size}" for field in ("data.common.size", "crop_size")),
    ]
    assert train_main(argv) == 0
    assert evaluate.main(["--workdir", str(folder)]) == 0
    return folder


def assert_scored(folder, suite, protocols, trials, columns=()):
    """The suite has exactly these protocols, of which the first one is the main one."""
    rows = [row for row in read_rows(folder / "retrieval.csv") if row["suite"] == suite]
    expected = {(name, str(t)) for name in protocols for t in (*range(1, trials + 1), "mean")}
    assert {(row["protocol"], row["trial"]) for row in rows} == expected
    assert len(rows) == len(expected)
    scores = {
        row["slice"]: row
        for row in read_rows(folder / "evaluations" / "last.csv")
        if row["suite"] == suite
    }
    assert scores.keys() == {"", *protocols[1:]}
    for name, row in scores.items():
        gap = () if name else MODALITY_GAP
        for column in (*RETRIEVAL, *columns, *gap):
            assert 0 <= float(row[column]) <= 1, (name, column)
        assert float(row["queries"]) > 0
    (result,) = [row for row in read_rows(folder / "results.csv") if row["suite"] == suite]
    (main,) = [r for r in rows if r["protocol"] == protocols[0] and r["trial"] == "mean"]
    for column in RETRIEVAL:
        assert float(result[column]) == pytest.approx(float(main[column]), abs=1e-6)


def suites(folder):
    return {row["suite"] for row in read_rows(folder / "results.csv")}


@pytest.mark.parametrize("full", [False, True])
def test_sysu(tmp_path, full):
    folder = train_and_evaluate(tmp_path, "sysu", recognition_sets.sysu, full=full)
    assert suites(folder) == ({"test"} if full else {"val", "test"})
    assert_scored(folder, "test", SYSU, TRIALS)


def test_regdb(tmp_path):
    folder = train_and_evaluate(tmp_path, "regdb", recognition_sets.regdb, trial=2)
    assert_scored(folder, "test", DIRECTIONS, 1)


def test_llcm(tmp_path):
    folder = train_and_evaluate(tmp_path, "llcm", recognition_sets.llcm)
    assert_scored(folder, "test", DIRECTIONS, TRIALS)


def test_own_images(tmp_path):
    folder = train_and_evaluate(tmp_path, "own", recognition_sets.pairs, val=0.5, capture="IMG_(.)")
    for suite in ("val", "test"):
        assert_scored(folder, suite, DIRECTIONS, 1)


@pytest.mark.parametrize("layout", ["oulu", "buaa"])
def test_faces(tmp_path, layout):
    folder = train_and_evaluate(
        tmp_path, "faces", faces, size=(32, 32), backbone=MICRO_LIGHTCNN, format=layout
    )
    assert_scored(folder, "test", DIRECTIONS[1:], 1, VERIFICATION)
