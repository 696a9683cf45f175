"""What is refused before a run begins, and phases, the training of each left out."""

import csv
import logging

import pytest

from tests.configs import classifier, detector
from tinyjax import train
from tinyjax.config import validation
from tinyjax.errors import UserError
from tinyjax.run import run_folder
from tinyjax.run.csv_files import write_rows
from tinyjax.run.logs import log

NAME = run_folder.member_id({})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "batch = 0: give 1 or more"),
        ({"model.batchnorm_eps": -1.0}, r"model\.batchnorm_eps = -1\.0: give 0 or more"),
        ({"model.batchnorm_eps": float("nan")}, r"model\.batchnorm_eps = nan: give 0 or more"),
        ({"optimizer.backbone_lr_scale": -1.0}, r"optimizer\.backbone = -1\.0: give 0 or more"),
        ({"optimizer.layer_decay": -0.5}, r"optimizer\.layer_decay = -0\.5: give 0 to 1"),
        ({"optimizer.layer_decay": 1e300}, r"optimizer\.layer_decay = 1e\+300: give 0 to 1"),
        ({"augment.mixup": -0.2}, r"augment\.mixup = -0\.2: give 0 or more"),
        ({"augment.cutmix": float("inf")}, r"augment\.cutmix = inf: give 0 or more"),
        ({"reinit": ("head/.*",)}, r"reinit = \('head/\.\*',\): there is no init"),
        ({"freeze": ("backbones",)}, "did you mean 'backbone'"),
        ({"data.suites": {"val": {}, "train": {}}}, "data.suites: 'train' is .* another name"),
    ],
)
def test_what_is_refused_without_a_look_at_the_data(fields, message):
    config = classifier.get_config()
    validation.check(config)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        validation.check(config)


PHASES = ({"freeze": ("backbone",), "reinit": ("head/.*",)}, {"schedule.steps": 4})


def of_phases(*phases):
    config = detector.get_config()
    config.init, config.phases = "runs/before", phases or PHASES
    return config


@pytest.fixture
def trained(monkeypatch):
    """The phases that were trained since, as (folder, config): nothing but their last files is
    made. Whatever is in `trained.codes` is what they end with first.
    """

    def train_members(config, members, folder, stop, **_):
        runs.append((folder, config))
        train.log.info(f"training in {folder.name}")
        (folder / "populations/0/checkpoints/1").mkdir(parents=True, exist_ok=True)
        if code := runs.codes.pop(0) if runs.codes else 0:
            return code
        for kind in ("members", "results"):
            write_rows(folder / f"{kind}.csv", [{"of": folder.name}], ("of",))
        (folder / "weights").mkdir()
        (folder / "weights" / f"{NAME}.json").write_text(folder.name)
        return 0

    class Runs(list):
        codes = ()

    runs = Runs()
    monkeypatch.setattr(train, "train_members", train_members)
    return runs


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_phase_starts_from_the_one_before_and_says_so(trained, tmp_path):
    folder = tmp_path / "run"
    assert train(of_phases(), folder) == 0
    (one, first), (two, second) = trained
    assert (one, two) == (folder / "phase1", folder / "phase2")
    assert (first.init, second.init) == ("runs/before", str(one))
    assert (first.reinit, second.reinit) == (("head/.*",), ())
    assert (first.freeze, second.freeze) == (("backbone",), ())
    assert (first.phases, second.phases) == ((), ())
    for place, config in trained:
        assert (place / "config.json").read_text() == train.configs.to_json(config)
    assert (folder / "weights" / f"{NAME}.json").read_text() == "phase2"
    for kind in ("members", "results"):
        assert rows_of(folder / f"{kind}.csv") == [
            {"phase": "1", "of": "phase1"}, {"phase": "2", "of": "phase2"},
        ]  # fmt: skip


def test_the_log_of_the_whole_and_that_of_each_phase(trained, tmp_path):
    folder = tmp_path / "run"
    train(of_phases(), folder)
    *lines, last = (folder / "log.txt").read_text().splitlines()
    assert lines == [
        f"phase 1 of 2: {PHASES[0]}", "training in phase1",
        f"phase 2 of 2: {PHASES[1]}", "training in phase2",
    ]  # fmt: skip
    assert last.endswith(f"everything is in {folder}")
    assert (folder / "phase1" / "log.txt").read_text() == "training in phase1\n"
    assert (folder / "phase2" / "log.txt").read_text() == "training in phase2\n"
    files = [one for one in log.handlers if isinstance(one, logging.FileHandler)]
    assert files == []


def test_a_phased_run_goes_on_where_it_is_now(trained, tmp_path, monkeypatch):
    """Stopped in its second phase, moved, and named by a relative path."""
    trained.codes = [0, train.STOPPED]
    assert train(of_phases(), tmp_path / "run") == train.STOPPED
    assert not (tmp_path / "run" / "results.csv").exists()
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert train(of_phases(), "moved") == 0
    folders = [str(folder.name) for folder, _ in trained]
    assert folders == ["phase1", "phase2", "phase2"]
    assert trained[-1][1].init == "moved/phase1"


def test_a_phased_run_is_protected_against_another_config(trained, tmp_path):
    trained.codes = [0, train.STOPPED]
    train(of_phases(), tmp_path)
    other = of_phases()
    other.phases, other.seed = (), 7
    with pytest.raises(UserError, match="holds a run of another config"):
        train(other, tmp_path)
    with pytest.raises(UserError, match="holds a run of another config"):
        train(of_phases(PHASES[0]), tmp_path)
    assert len(trained) == 2


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"schedule.step": 3}, r"schedule\.step: .*did you mean --config\.schedule\.steps"),
        ({"schedule.steps": "three"}, r"schedule\.steps = 'three': wants a value of type int"),
        ("a", "phases: 'a': give a dict, field -> value"),
        ({"init": "runs/a"}, "phases: {'init': 'runs/a'}: a phase has no init and no phases"),
        ({"phases": ({},)}, "a phase has no init and no phases of its own"),
        ({"save_every": 0}, r"every\.save = 0: give 1 or more"),
        ({"monitor": "test"}, "monitor = 'test': no such suite"),
        ({"freeze": ("backbones",)}, "freeze: 'backbones': did you mean 'backbone'"),
    ],
)
def test_a_mistake_in_the_last_phase_shows_before_the_first(trained, tmp_path, last, message):
    with pytest.raises(UserError, match=message):
        train(of_phases({}, last), tmp_path / "run")
    assert trained == []
