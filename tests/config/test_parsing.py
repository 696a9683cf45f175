import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from tinyjax.config import definitions, from_json, load, override, parse_arg, parse_options, to_json
from tinyjax.config.defaults import classifier, detection_fields, detector, fill_defaults
from tinyjax.config.detectors import DETECTORS
from tinyjax.errors import UserError

FILE = """
from ml_collections import ConfigDict
from tinyjax.config import parse_arg

LAYERS = 3

def get_config(arg=None):
    arg = parse_arg(arg, width=1.0, steps=100, fast=False)
    return ConfigDict({"width": arg.width, "steps": arg.steps, "fast": arg.fast, "layers": LAYERS})

def get_hyper(hyper):
    return hyper
"""


def example():
    return ConfigDict(
        {
            "seed": 0,
            "note": "text",
            "start": None,
            "bins": (8, 16),
            "rules": (("head", 1.0), ("stem", 0.0)),
            "names": [],
            "classes": ("person", "car"),
            "nothing": (),
            "range": ("percentiles", 1.0, 99.0),
            "optimizer": {"lr": 0.1, "nesterov": False, "betas": (0.9, 0.999)},
            "schedule": {"warmup": 10},
            "anything": {},
        }
    ).lock()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "example.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("seed=3", "seed", 3),
        ("seed=-3", "seed", -3),
        ("note=a=b, c", "note", "a=b, c"),
        ("note=", "note", ""),
        ("note=3", "note", "3"),
        ("optimizer.lr=2e-3", "optimizer.lr", 0.002),
        ("optimizer.lr=2", "optimizer.lr", 2.0),
        ("optimizer.nesterov=true", "optimizer.nesterov", True),
        ("optimizer.nesterov=False", "optimizer.nesterov", False),
        ("optimizer.nesterov=1", "optimizer.nesterov", True),
        ("optimizer.nesterov", "optimizer.nesterov", True),
        ("bins=(4, 8, 12)", "bins", (4, 8, 12)),
        ("bins=4,8", "bins", (4, 8)),
        ("bins=()", "bins", ()),
        ("optimizer.betas=0,0.9", "optimizer.betas", (0.0, 0.9)),
        ('rules=(("neck", 0.5),)', "rules", (("neck", 0.5),)),
        ("names=['a', 2]", "names", ["a", 2]),
        ("classes=dog,cat", "classes", ("dog", "cat")),
        ("classes=dog", "classes", ("dog",)),
        ("classes=('a, b',)", "classes", ("a, b",)),
        ("classes=()", "classes", ()),
        ("nothing=person,car", "nothing", ("person", "car")),
        ("nothing=backbone/.{4,6},head/[a,b]", "nothing", ("backbone/.{4,6}", "head/[a,b]")),
        ("classes=(('stem', 0), 'neck')", "classes", (("stem", 0), "neck")),
        ("rules=backbone,neck", "rules", ("backbone", "neck")),
        ("nothing=(8, 'a')", "nothing", (8, "a")),
        ("range=range,0,65535", "range", ("range", 0.0, 65535.0)),
        ("range=('range', 0, 1.5)", "range", ("range", 0.0, 1.5)),
        ("start=runs/a", "start", "runs/a"),
        ("start=7", "start", 7),
    ],
)
def test_override(text, field, value):
    config = override(example(), [f"--config.{text}"])
    got = config
    for name in field.split("."):
        got = got[name]
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, tuple):
        assert [type(v) for v in got] == [type(v) for v in value]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed=3", r"config\.sed: no such field; did you mean --config\.seed\?"),
        ("lr=3", r"config\.lr: .* did you mean --config\.optimizer\.lr\?"),
        ("optimiser.lr=3", r"did you mean --config\.optimizer\.lr\?"),
        ("optimizer.beta=3", r"did you mean --config\.optimizer\.betas"),
        ("seed.lr=3", r"config\.seed\.lr: no such field"),
        ("qqqqqq=1", r"config\.qqqqqq: no such field; known: .*seed"),
        ("optimizer=3", r"config\.optimizer: a group.*fields: .*optimizer\.lr"),
        ("anything=3", r"config\.anything: a group.*fields: none"),
        ("seed", r"config\.seed: needs a value"),
        ("note", r"config\.note: needs a value"),
        ("seed=1.5", r"config\.seed = '1\.5': expected an int"),
        ("seed=true", r"config\.seed = 'true': expected an int"),
        ("optimizer.lr=fast", r"config\.optimizer\.lr = 'fast': expected a float"),
        ("optimizer.nesterov=2", r"config\.optimizer\.nesterov = '2': expected true or false"),
        ("bins=8", r"config\.bins = '8': expected a tuple like \(8, 16\)"),
        ("bins=1.5,2", r"config\.bins = '1\.5,2': expected a tuple like \(8, 16\)"),
        ("bins=a,b", r"config\.bins = 'a,b': expected a tuple"),
        ("bins=(1,", r"config\.bins = '\(1,': expected a tuple"),
        ("nothing=(neck|head)/.*", r"expected a tuple like \('text', 'in quotes'\)"),
    ],
)
def test_override_rejects_invalid_values(text, message):
    before = to_json(example())
    config = example()
    with pytest.raises(UserError, match=message):
        override(config, [f"--config.{text}"])
    assert to_json(config) == before


def test_override_rejects_types_without_text_form():
    with pytest.raises(UserError, match=r"config\.fields: a frozenset cannot be set"):
        override(ConfigDict({"fields": frozenset("ab")}), ["--config.fields=a"])


def test_later_overrides_win():
    assert override(example(), ["--config.seed=1", "--config.seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("", {}),
        (":", {}),
        (":width=0.5", {"width": 0.5}),
        (":width=2,fast", {"width": 2.0, "fast": True}),
        (":fast=false,steps=7", {"steps": 7}),
    ],
)
def test_load(file, arg, expected):
    config = load(f"{file}{arg}")
    assert config.to_dict() == {"width": 1.0, "steps": 100, "fast": False, "layers": 3} | expected
    with pytest.raises(AttributeError):
        config.another = 1


def test_overrides_win_over_arguments(file):
    assert load(f"{file}:steps=7", ["--config.steps=9"]).steps == 9


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("stps=7", r"config argument 'stps': did you mean 'steps'\?"),
        ("name=a,b", r"config argument 'b': known: .*; if it follows a comma in a value, quote"),
        ("steps=x", r"config argument steps = 'x': expected an int"),
        ("steps", r"config argument steps: needs a value"),
    ],
)
def test_load_rejects_invalid_arguments(file, arg, message):
    with pytest.raises(UserError, match=message):
        load(f"{file}:{arg}")


def test_load_rejects_invalid_files(tmp_path):
    with pytest.raises(UserError, match=r"missing\.py:fast: no such Python file"):
        load(f"{tmp_path}/missing.py:fast")
    with pytest.raises(UserError, match="no such Python file"):
        load(str(tmp_path))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"empty\.py defines no get_config"):
        load(f"{tmp_path}/empty.py")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ('c.freeze = "backbone"', "type <class 'tuple'>"),
        ('c.phases = {"freeze": ("stem",)}', "type <class 'tuple'>"),
        ('c.frezee = ("backbone",)', 'the config is locked. Did you mean "freeze"'),
        ("c.model.neck_width = 3.5", "type <class 'int'>"),
    ],
)
def test_errors_in_a_config_file_name_the_line(tmp_path, monkeypatch, mistake, message):
    monkeypatch.setattr(sys, "tracebacklimit", 0, raising=False)  # as some libraries leave it
    file = tmp_path / "wrong.py"
    file.write_text(
        "from tinyjax.config import detector\n"
        f"def get_config(arg=None):\n    c = detector()\n    {mistake}\n    return c\n"
    )
    with pytest.raises(UserError, match=r"wrong\.py, line 4: ") as error:
        load(str(file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_definitions(file):
    assert definitions(f"{file}:fast")["get_hyper"]("grid") == "grid"


def test_parse_arg_is_locked():
    arg = parse_arg(None, width=1.0)
    assert arg.width == 1.0
    with pytest.raises(AttributeError):
        arg.another = 1


def test_json_round_trip():
    config = override(example(), ["--config.names=()", "--config.optimizer.lr=1e30"])
    back = from_json(to_json(config))
    expected = config.to_dict() | {"names": ()}  # a list comes back as a tuple
    assert back.to_dict() == expected
    assert to_json(back) == to_json(config)
    with pytest.raises(UserError, match=r"did you mean --config\.seed"):
        override(back, ["--config.sed=1"])


def test_json_does_not_depend_on_field_order():
    assert to_json(ConfigDict({"b": 1, "a": 2})) == to_json(ConfigDict({"a": 2, "b": 1}))


@pytest.mark.parametrize(
    ("argv", "overrides"),
    [
        ([], []),
        (["--config.a.b=1"], ["--config.a.b=1"]),
        (["--config.a.b", "1"], ["--config.a.b=1"]),
        (["--config.a.b", "-1"], ["--config.a.b=-1"]),
        (["--config.a", "--config.b=1"], ["--config.a", "--config.b=1"]),
        (["--config.a"], ["--config.a"]),
        (["--config.b=--x"], ["--config.b=--x"]),
    ],
)
def test_parse_options(argv, overrides):
    got = parse_options("train", "About.", [*argv, "--config", "x.py:fast", "--workdir=runs/x"])
    assert got.config == "x.py:fast"
    assert got.workdir == Path("runs/x")
    assert got.overrides == overrides


def test_parse_options_with_flags():
    flags = {"--suite": {"default": "val"}, "--plot": {"action": "store_true"}}
    got = parse_options("report", None, ["--plot", "--config.a", "2"], flags, required=())
    assert (got.suite, got.plot) == ("val", True)
    assert not hasattr(got, "config")  # a command has no flags that it would ignore
    assert got.overrides == ["--config.a=2"]


def test_parse_options_defaults_to_sys_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--config", "x.py", "--workdir", "y"])
    assert parse_options("train", None).config == "x.py"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "x.py", "--workdir", "y", "--speed=3"], "unrecognized arguments: --speed=3"),
        (["--config", "x.py", "--workdir", "y", "z"], "unrecognized arguments: z"),
        (["--conf", "x.py", "--workdir", "y"], "required: --config"),
        (["--config", "x.py"], "required: --workdir"),
        (["--config", "x.py", "--workdir"], "expected one argument"),
    ],
)
def test_parse_options_rejects_invalid_arguments(argv, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options("train", None, argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_imports_no_heavy_packages():
    code = (
        "import sys\n"
        "from tinyjax.config import parse_options\n"
        "try:\n"
        "    parse_options('train', 'About training.', ['--help'])\n"
        "finally:\n"
        "    print(sorted({'jax', 'matplotlib', 'numpy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "About training." in done.stdout
    assert "--config.A.B" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_docs_page_is_up_to_date():
    docs = Path(__file__).parents[2] / "docs"
    page = runpy.run_path(str(docs / "make_configs.py"))["page"]()
    assert (docs / "configs.md").read_text() == page
    for path in detection_fields():
        assert f"| `{path}` |" in page


def test_defaults_share_no_mutable_state():
    """A suite that is added to one config must not appear in the next one."""
    first = detector()
    first.data.suites = {"val": {"split": "val"}}
    first.score.size_bins["all"] = (0, 9)
    assert detector().data.suites.to_dict() == {}
    assert "all" not in detector().score.size_bins


def test_detector_selects_the_fields():
    assert detector().model.detector == "point"
    assert {"class", "box", "offset"} < detector("point").loss.to_dict().keys()
    assert "offset" not in detector("retinanet").loss
    assert "detector" not in classifier().model
    with pytest.raises(UserError, match=r"model\.detector = 'pont': did you mean 'point'"):
        detector("pont")


def test_complete_adds_missing_fields_of_the_runs_detector(monkeypatch):
    monkeypatch.setitem(DETECTORS, "other", {"loss.mask": (0.5, "weight of the mask loss")})
    config = fill_defaults({"task": "detect", "model": {"detector": "other"}, "seed": 3})
    assert config["seed"] == 3
    assert config["loss"] == {"mask": 0.5}
    old = fill_defaults({"task": "detect", "loss": {"box": 3.0}})  # from before `model.detector`
    assert old["model"]["detector"] == "point"
    assert old["loss"] == {**detector().loss.to_dict(), "box": 3.0}
    assert fill_defaults({"task": "classify"}) == classifier().to_dict()
