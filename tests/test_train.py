"""Mistakes in configs that are reported before a run begins, and training in phases."""

import logging
from importlib import import_module

import pytest

from tests.configs import classifier, detector
from tinyjax import config as configs
from tinyjax.api import train
from tinyjax.errors import UserError
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.logs import log
from tinyjax.train import STOPPED
from tinyjax.training import validation

NAME = run_folder.member_id({})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "batch = 0: give 1 or more"),
        ({"model.batchnorm_eps": -1.0}, r"model\.batchnorm_eps = -1\.0: give 0 or more"),
        ({"model.batchnorm_eps": float("nan")}, r"model\.batchnorm_eps = nan: give 0 or more"),
        (
            {"optimizer.backbone_lr_scale": -1.0},
            r"optimizer\.backbone_lr_scale = -1\.0: give 0 or more",
        ),
        ({"optimizer.layer_decay": -0.5}, r"optimizer\.layer_decay = -0\.5: give 0 to 1"),
        ({"optimizer.layer_decay": 1e300}, r"optimizer\.layer_decay = 1e\+300: give 0 to 1"),
        ({"augment.mixup": -0.2}, r"augment\.mixup = -0\.2: give 0 or more"),
        ({"augment.cutmix": float("inf")}, r"augment\.cutmix = inf: give 0 or more"),
        ({"reinit": ("head/.*",)}, r"reinit = \('head/\.\*',\): without init"),
        ({"freeze": ("backbones",)}, "did you mean 'backbone'"),
        ({"model.backbone": "resnet/19"}, "'resnet/19' is unknown; did you mean"),
        ({"model.dtype": "bf16"}, "did you mean 'bfloat16'"),
        ({"data.suites": {"val": {}, "train": {}}}, "data.suites: 'train' names .* another name"),
    ],
)
def test_mistakes_are_reported_without_the_data(fields, message):
    config = classifier.get_config()
    validation.check_config(config)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        validation.check_config(config)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("train", ("--workdir=x", "--dry-run")), ("preflight", ("--accelerator=cpu",))],
)
def test_mistakes_are_reported_before_a_plan_is_made(command, arguments):
    main = import_module(f"tinyjax.{command}").main
    with pytest.raises(UserError, match=r"model\.neck_repeats = 0: give 1 or more"):
        main(["--config", detector.__file__, *arguments, "--config.model.neck_repeats=0"])


PHASES = ({"freeze": ("backbone",), "reinit": ("head/.*",)}, {"schedule.steps": 4})


def phased_config(*phases):
    config = detector.get_config()
    config.init, config.phases = "runs/before", phases or PHASES
    return config


@pytest.fixture
def trained(monkeypatch):
    """The (folder, config) of each phase, whose training is replaced by writing its last files.

    `trained.codes` holds the exit codes of the first phases; the others are 0.
    """

    def train_members(config, folder, *_):
        phases.append((folder, config))
        log.info(f"training in {folder.name}")
        (folder / "populations/0/checkpoints/1").mkdir(parents=True, exist_ok=True)
        if code := phases.codes.pop(0) if phases.codes else 0:
            return code
        for table in ("members", "results"):
            write_rows(folder / f"{table}.csv", [{"folder": folder.name}], ("folder",))
        (folder / "weights").mkdir()
        (folder / "weights" / f"{NAME}.json").write_text(folder.name)
        return 0

    class Phases(list):
        codes = ()

    phases = Phases()
    monkeypatch.setattr(import_module("tinyjax.train"), "train_members", train_members)
    return phases


def test_each_phase_starts_from_the_previous_one(trained, tmp_path):
    folder = tmp_path / "run"
    assert train(phased_config(), folder) == 0
    (folder1, config1), (folder2, config2) = trained
    assert (folder1, folder2) == (folder / "phase1", folder / "phase2")
    assert (config1.init, config2.init) == ("runs/before", str(folder1))
    assert (config1.reinit, config2.reinit) == (("head/.*",), ())
    assert (config1.freeze, config2.freeze) == (("backbone",), ())
    assert (config1.phases, config2.phases) == ((), ())
    for path, config in trained:
        assert (path / "config.json").read_text() == configs.to_json(config)
    assert (folder / "weights" / f"{NAME}.json").read_text() == "phase2"
    for table in ("members", "results"):
        assert read_rows(folder / f"{table}.csv") == [
            {"phase": "1", "folder": "phase1"}, {"phase": "2", "folder": "phase2"},
        ]  # fmt: skip


def test_the_run_and_each_phase_have_a_log(trained, tmp_path):
    folder = tmp_path / "run"
    train(phased_config(), folder)
    *lines, last_line = (folder / "log.txt").read_text().splitlines()
    assert lines == [
        f"phase 1 of 2: {PHASES[0]}", "training in phase1",
        f"phase 2 of 2: {PHASES[1]}", "training in phase2",
    ]  # fmt: skip
    assert last_line.endswith(f"everything is in {folder}")
    assert (folder / "phase1" / "log.txt").read_text() == "training in phase1\n"
    assert (folder / "phase2" / "log.txt").read_text() == "training in phase2\n"
    assert [h for h in log.handlers if isinstance(h, logging.FileHandler)] == []


def test_a_moved_phased_run_resumes(trained, tmp_path, monkeypatch):
    """Stopped in its second phase, moved, and given as a relative path."""
    trained.codes = [0, STOPPED]
    assert train(phased_config(), tmp_path / "run") == STOPPED
    assert not (tmp_path / "run" / "results.csv").exists()
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert train(phased_config(), "moved") == 0
    assert [folder.name for folder, _ in trained] == ["phase1", "phase2", "phase2"]
    assert trained[-1][1].init == "moved/phase1"


def test_a_phased_run_refuses_another_config(trained, tmp_path):
    trained.codes = [0, STOPPED]
    train(phased_config(), tmp_path)
    config = phased_config()
    config.phases, config.seed = (), 7
    with pytest.raises(UserError, match="belongs to a run of another config"):
        train(config, tmp_path)
    with pytest.raises(UserError, match="belongs to a run of another config"):
        train(phased_config(PHASES[0]), tmp_path)
    assert len(trained) == 2


@pytest.mark.parametrize(
    ("last_phase", "message"),
    [
        ({"schedule.step": 3}, r"schedule\.step: .*did you mean --config\.schedule\.steps"),
        ({"schedule.steps": "three"}, r"schedule\.steps = 'three': expected type int"),
        ("a", "phases: 'a': give a dict, field -> value"),
        ({"init": "runs/a"}, "phases: {'init': 'runs/a'}: a phase sets neither init nor phases"),
        ({"phases": ({},)}, "a phase sets neither init nor phases"),
        ({"save_every": 0}, "save_every = 0: give 1 or more"),
        ({"monitor": "test"}, "monitor = 'test': no such suite"),
        ({"freeze": ("backbones",)}, "freeze: 'backbones': did you mean 'backbone'"),
    ],
)
def test_a_mistake_in_the_last_phase_is_reported_before_the_first(
    trained, tmp_path, last_phase, message
):
    with pytest.raises(UserError, match=message):
        train(phased_config({}, last_phase), tmp_path / "run")
    assert trained == []
