"""The tiny detection run with slices by image fields, a corrupted suite, and a suite with fewer
classes. The argument is the folder of a COCO set with these fields.
"""

from tests.configs import detector


def get_config(arg=None):
    config = detector.get_config()
    config.schedule.steps, config.schedule.warmup = 2, 1
    config.save_every = config.eval_every = 2
    config.model.strides = (16,)
    config.data.format = "coco"
    config.data.common = {"source": f"{arg}/own"}
    config.data.train = {"split": "train"}
    config.data.suites = {
        "val": {"split": "val"},
        "other": {"source": f"{arg}/other", "split": "val", "rename": {"human": "person"}},
        "noisy": {"split": "val", "corrupt": ("gaussian_noise", "polarity"), "limit": 3},
    }
    config.data.slices = {"time": (), "altitude": (0, 50, 101)}
    return config
