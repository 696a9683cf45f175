"""A tiny study: two seeds, then two seeds from scratch and from the weights of the first."""

from tests.configs import detector
from tinyjax.population import search_space as hyper
from tinyjax.study import init_points


def get_study(arg, workdir):
    seeds = hyper.sweep("seed", range(2))
    tuned = detector.get_config()
    tuned.data.train.update({"n": 12, "day": 1.0})
    return {
        "before": (detector.get_config(), seeds),
        "tuned": (tuned, hyper.product([init_points(workdir / "before"), seeds])),
    }
