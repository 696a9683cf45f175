"""The smallest study: two seeds, then the same from scratch and from these. A config file."""

from tests.configs import detector
from tinyjax.population import search_space as hyper
from tinyjax.study import starts


def get_study(arg, workdir):
    seeds = hyper.sweep("seed", range(2))
    tuned = detector.get_config()
    tuned.data.train.update({"n": 12, "day": 1.0})
    return {
        "before": (detector.get_config(), seeds),
        "tuned": (tuned, hyper.product([starts(workdir / "before"), seeds])),
    }
