"""Write docs/configs.md anew from the table in tinyjax/defaults.py: python docs/make_configs.py"""

from pathlib import Path

from tinyjax.defaults import DETECTOR

HEAD = r"""# Configs

<!-- Made by `python docs/make_configs.py` from tinyjax/defaults.py; change it there. -->

A config is a Python file with `get_config(arg=None)` that returns an `ml_collections.ConfigDict`,
most often `tinyjax.defaults.detector()` with some fields changed. What stands after the colon on
the command line is `arg`; any field can be set there too:

    python -m tinyjax.train --config configs/own.py:source=mine.zip --workdir runs/mine \
        --config.optimiser.lr=1e-3 --config.model.strides=4,8,16

A field that does not exist is an error that names the nearest one; so is a value of another type.
Sizes are (height, width) in pixels, lengths in steps.
"""


def page() -> str:
    """The page: a table for each group of fields."""
    groups: dict[str, list[str]] = {}
    for path, (default, meaning) in DETECTOR.items():
        group = path.split(".")[0] if "." in path else "the run"
        groups.setdefault(group, []).append(f"| `{path}` | `{default!r}` | {meaning} |")
    lines = [HEAD]
    for group, rows in groups.items():
        lines += [f"\n## {group}\n", "| field | default | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("configs.md").write_text(page())
