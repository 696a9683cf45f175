"""A tiny study of classifiers: two seeds, then two seeds from scratch and from the weights of the
first. The argument is the folder of the images.
"""

from tests.configs import classifier
from tinyjax.population import search_space as hyper


def get_config(arg):
    config = classifier.get_config(arg)
    config.schedule.steps, config.schedule.warmup = 2, 1
    config.save_every = config.eval_every = 2
    return config


def get_study(arg, workdir):
    seeds, inits = hyper.sweep("seed", range(2)), hyper.sweep("init", ["", str(workdir / "before")])
    tuned = get_config(arg)
    tuned.data.train["limit"] = 6
    return {
        "before": (get_config(arg), seeds),
        "tuned": (tuned, hyper.product([inits, seeds])),
    }
