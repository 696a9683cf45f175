"""Write the table of docs/backbones.md, which takes a minute:

python docs/make_backbones.py
"""

from pathlib import Path

import jax

from tinyjax import models
from tinyjax.models import flops

PAGE = Path(__file__).with_name("backbones.md")
START, END = "<!-- table: python docs/make_backbones.py -->\n", "<!-- end of table -->\n"
AFTER_STAGES = ("head/", "hidden/", "classifier/")
INPUTS = {"lightcnn": (1, 128, 128, 1)}  # of the published networks; default:
DEFAULT_INPUT = (1, 224, 224, 3)


def table() -> str:
    """Return one row per variant."""
    lines = [
        "| backbone | parameters | without classifier | stem and stages | multiply-adds | levels |",
        "|---|---|---|---|---|---|",
    ]
    for name in models.variants():
        model, shape = models.build(name, 1000), INPUTS.get(name.split("/")[0], DEFAULT_INPUT)
        params, _ = jax.eval_shape(lambda model=model, shape=shape: models.init(model, 0, shape))
        counts = (
            flops.count_parameters(
                {p: leaf for p, leaf in params.items() if not p.startswith(rest)}
            )
            for rest in ((), ("classifier/",), AFTER_STAGES)
        )
        adds = flops.count_multiply_adds(model, shape) / 1e6
        levels = ", ".join(map(str, model.arch.feature_strides))
        cells = [f"`{name}`", *(f"{n:,}" for n in counts), f"{adds:,.1f} M", levels]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page with a new table."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    return f"{head}{START}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
