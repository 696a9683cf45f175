"""Config files and their arguments."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyjax.config import format_arg, load, parse_arg
from tinyjax.config.spec import CONFIGS, find_config_file, split_arg, split_spec
from tinyjax.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("configs/own.py", ("configs/own.py", None)),
        ("configs/own.py:", ("configs/own.py", "")),
        ("configs/own.py:a=1,b", ("configs/own.py", "a=1,b")),
        (r"C:\configs\own.py:source=C:\data", (r"C:\configs\own.py", r"source=C:\data")),
        ("a.python/own.py:x=b.py:c", ("a.python/own.py", "x=b.py:c")),
        ("own.txt:a", ("own.txt", "a")),
    ],
)
def test_split_spec(spec, expected):
    assert split_spec(spec) == expected


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("", []),
        ("a", [("a", None)]),
        ("a=", [("a", "")]),
        ('source="/data/a,b.zip",classes=x', [("source", "/data/a,b.zip"), ("classes", "x")]),
        ("source='/data/a,b.zip',fast", [("source", "/data/a,b.zip"), ("fast", None)]),
        ('a="say ""x"", y"', [("a", 'say "x", y')]),
        (r"a=C:\data=1,b=http://x:8/?q=1", [("a", r"C:\data=1"), ("b", "http://x:8/?q=1")]),
        ("a=5\",b=it's", [("a", '5"'), ("b", "it's")]),  # quotes that do not begin a value
    ],
)
def test_split_arg(arg, expected):
    assert split_arg(arg) == expected


@pytest.mark.parametrize("arg", ['a="x', 'a="x"y', 'a="x,b=2', "a='x,b=2"])
def test_quote_that_is_not_closed_is_an_error(arg):
    with pytest.raises(UserError, match="config argument a="):
        split_arg(arg)


@given(st.text(), st.text(), st.integers(), st.booleans())
def test_parse_arg_inverts_format_arg(source, init, steps, fast):
    values = {"source": source, "init": init, "steps": steps, "fast": fast}
    arg = format_arg(**values)
    assert parse_arg(arg, source="", init="", steps=0, fast=False).to_dict() == values


def test_configs_that_come_with_tinyjax_are_found_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in CONFIGS.rglob("*.py"):
        assert find_config_file(f"configs/{file.relative_to(CONFIGS)}:a=1") == file
    assert find_config_file("./configs/own.py") == CONFIGS / "own.py"
    assert load("configs/own.py:source='a,b.zip'").data.common.source == "a,b.zip"


def test_config_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "own.py").write_text("")
    assert find_config_file("configs/own.py") == Path("configs/own.py")
    assert find_config_file("configs/coco.py") == CONFIGS / "coco.py"


def test_home_folder_of_a_config_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.py").write_text("")
    assert find_config_file("~/x.py:a=1") == tmp_path / "x.py"


@pytest.mark.parametrize("spec", ["configs/onw.py:a=1", "own.py", "config/own.py"])
def test_missing_config_file_suggests_those_of_tinyjax(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such Python file: .*did you mean 'configs/own.py'"):
        find_config_file(spec)


@pytest.mark.parametrize("name", ["frozen", "regularizer"])
def test_sweeps_pass_on_paths_with_commas(name):
    config = load(f"{ROOT}/configs/sweeps/{name}.py:init='runs/a,b',steps=7")
    assert (config.init, config.schedule.steps) == ("runs/a,b", 7)
