"""Write docs/configs.md from the table in tinyjax/config/defaults.py:

python docs/make_configs.py
"""

from pathlib import Path

from tinyjax.config.defaults import CLASSIFIER, DETECTOR

HEAD = r"""# Configs

<!-- Made by `python docs/make_configs.py` from tinyjax/config/defaults.py; change it there. -->

A config is a Python file with `get_config(arg=None)` that returns an `ml_collections.ConfigDict`,
most often `tinyjax.config.detector()` or `classifier()` with some fields changed. What stands
after the colon on the command line is `arg`; any field can be set there too:

    python -m tinyjax.train --config configs/own.py:source=mine.zip --workdir runs/mine \
        --config.optimizer.lr=1e-3 --config.model.strides=4,8,16

A field that does not exist is an error that names the nearest one; so is a value of another type.
Sizes are (height, width) in pixels, lengths in steps.
"""


def page() -> str:
    """The page: a table for each group of a detector's fields, and one of what a classifier has."""
    groups: dict[str, list[str]] = {}
    for path, row in DETECTOR.items():
        groups.setdefault(path.split(".")[0] if "." in path else "the run", []).append(
            _row(path, row)
        )
    own = {path: row for path, row in CLASSIFIER.items() if row != DETECTOR.get(path)}
    groups["of a classifier"] = [_row(path, row) for path, row in own.items()]
    lines = [HEAD]
    for group, rows in groups.items():
        lines += [f"\n## {group}\n", "| field | default | meaning |", "|---|---|---|", *rows]
    lines += [
        "",
        "A classifier has the fields above as well, but for `model.strides`, `model.neck_*`, and",
    ]
    lines += ["those of `augment`, `loss`, `nms` and `score`."]
    return "\n".join(lines) + "\n"


def _row(path: str, row: tuple) -> str:
    default, meaning = row
    return f"| `{path}` | `{default!r}` | {meaning} |"


if __name__ == "__main__":
    Path(__file__).with_name("configs.md").write_text(page())
