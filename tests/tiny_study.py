"""The smallest study: two seeds, then the same from scratch and from these. A config file."""

from tests import tiny_config
from tinyjax.population import space as hyper
from tinyjax.study import starts


def get_study(arg, workdir):
    seeds = hyper.sweep("seed", range(2))
    tuned = tiny_config.get_config()
    tuned.data.train.update({"n": 12, "day": 1.0})
    return {
        "before": (tiny_config.get_config(), seeds),
        "tuned": (tuned, hyper.product([starts(workdir / "before"), seeds])),
    }
