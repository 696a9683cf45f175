"""Several mistakes are reported in one message."""

import re

import pytest

from launch import gcloud, jobset, skypilot
from launch.__main__ import main as launch
from tests.configs import detector as detector_config
from tinyjax import config as configs
from tinyjax.data.loading import load_split
from tinyjax.errors import UserError, exit_code, run_all
from tinyjax.training.validation import check_config


def fail(*messages):
    raise UserError(*messages)


def mistakes_of(call):
    with pytest.raises(UserError) as caught:
        call()
    return caught.value.args


def test_one_mistake_is_the_message_itself(capsys):
    assert exit_code(lambda: run_all(lambda: 1, lambda: fail("a = 1: give 2"))) == 2
    assert capsys.readouterr().err == "error: a = 1: give 2\n"


def test_mistakes_are_a_line_each(capsys):
    assert run_all(lambda: 1, lambda: 2) == [1, 2]
    checks = (lambda: fail("a"), lambda: 1, lambda: fail("b", "c"), lambda: fail("a"))
    assert exit_code(lambda: run_all(*checks)) == 2
    assert capsys.readouterr().err == "error: 3 mistakes:\n  a\n  b\n  c\n"


def test_only_user_errors_are_collected():
    with pytest.raises(ZeroDivisionError):
        run_all(lambda: fail("a"), lambda: 1 / 0)


def matches(messages, *patterns):
    assert len(messages) == len(patterns), messages
    for pattern in patterns:
        assert any(re.search(pattern, message) for message in messages), (pattern, messages)


def test_overrides():
    texts = ("schedule.step=3", "batch=x", "seed=1", "optimizer.lrr=1")
    overrides = [f"--config.{text}" for text in texts]
    messages = mistakes_of(lambda: configs.override(configs.detector(), overrides))
    matches(messages, r"schedule\.steps", "batch = 'x': expected an int", r"optimizer\.lr\b")


def test_config_arguments():
    arg = "stepz=3,source=a,batch=x"
    messages = mistakes_of(lambda: configs.parse_arg(arg, steps=1, source="", batch=2))
    matches(messages, "'stepz': did you mean 'steps'", "batch = 'x': expected an int")


def test_fields_of_a_config():
    config = detector_config.get_config().unlock()
    config.batch, config.save_every, config.monitor = 0, 0, "vall"
    config.regularizer.name, config.reinit, config.freeze = "rgm", ("head",), ("stage<=x",)
    config.data.suites.train = {"n": 4, "classes": ("person",)}
    patterns = (
        *("batch = 0", "save_every = 0", "monitor = 'vall'.*'val'", "regularizer.name = 'rgm'"),
        *("reinit = ", "stage<=x", "suites.train.classes", "suites: 'train' names"),
    )
    matches(mistakes_of(lambda: check_config(config)), *patterns)


def test_arguments_of_data():
    data = configs.detector().data.unlock()
    data.format, data.common = "coco", {"sorce": "a", "chanels": 1}
    messages = mistakes_of(lambda: load_split(data, data.train))
    matches(messages, "no arguments 'chanels', 'sorce' of a coco set", "no 'source'", "no 'split'")


SWEEP = ["--config=c.py", "--shards=2"]


def test_arguments_of_launch():
    argv = ["--engine=local", "--config=c.py", "--shards=0", "--workdir=x", "--accelerator=v6"]
    messages = mistakes_of(lambda: launch([*argv, "--dryrun", "--set=zone"]))
    matches(messages, "--shards 0", "--accelerator v6", "--dryrun", "--set zone: give KEY=VALUE")


@pytest.mark.parametrize("engine", ["gcloud", "jobset", "skypilot"])
def test_all_missing_settings_of_an_engine(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [f"--engine={engine}", *SWEEP, "--workdir=x", "--set=regionn=a", "--dry-run"]
    module = {"gcloud": gcloud, "jobset": jobset, "skypilot": skypilot}[engine]
    missing = [f"--set {k}=" for k, default in module.DEFAULTS.items() if default is None]
    if engine == "skypilot":
        missing.append("run this in a checkout")
    patterns = ("regionn: ", "--workdir .* bucket", "--accelerator cpu", *missing)
    matches(mistakes_of(lambda: launch(argv)), *patterns)
    assert engine == "skypilot" or len(missing) in (1, 3)
