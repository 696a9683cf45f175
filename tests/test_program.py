"""The program `tinyjax`, which runs the commands."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import tinyjax
from tinyjax.__main__ import COMMANDS, main, run
from tinyjax.errors import UserError

ROOT = Path(tinyjax.__file__).parents[1]


def test_help_names_every_command_in_one_line(capsys):
    commands = {
        file.stem
        for file in (ROOT / "tinyjax").glob("*.py")
        if file.stem != "__main__" and '__name__ == "__main__"' in file.read_text()
    }
    assert {*COMMANDS} == commands | {"launch"}
    for argv in ([], ["--help"], ["-h"]):
        assert main(argv) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if line.startswith("  ")] == [*COMMANDS]
        assert max(map(len, lines)) <= 100


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tinyjax {version('tinyjax')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_with_their_arguments(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    module = "launch" if command == "launch" else f"tinyjax.{command}"
    assert f"usage: python -m {module}" in capsys.readouterr().out


def test_unknown_command_suggests_one(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tinyjax", "trian"])
    assert run() == 2
    assert "tinyjax trian: did you mean 'train'?" in capsys.readouterr().err


def test_error_of_a_command_is_its_own(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        main(["report", str(tmp_path / "missing")])


def test_help_imports_nothing_slow():
    code = (
        "import sys; from tinyjax.__main__ import main; main(['--help'])\n"
        "assert not {'jax', 'numpy', 'matplotlib', 'tinyjax.train'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_functions_of_the_package_are_unchanged():
    """Importing the module of a command must not hide `tinyjax.train`."""
    import_module("tinyjax.train")
    assert callable(tinyjax.load)
    assert callable(tinyjax.train)
