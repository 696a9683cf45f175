"""What every detection config starts from; a config file changes what it is about and nothing else."""

from ml_collections import ConfigDict


def detector() -> ConfigDict:
    """Defaults of a detection run. Sizes are (height, width) in pixels, lengths in steps."""
    return ConfigDict(
        {
            "seed": 0,
            "model": {
                "backbone": "mobilenetv3/s-1",
                "strides": (4, 8),  # of the head's levels
                "width": 0,  # of neck and head; 0: that of the backbone's stride-16 features
                "dtype": "float32",  # or "bfloat16", for activations; weights and losses stay float32
            },
            "data": {
                "format": "coco",  # the module of tinyjax.data that loads; the rest are its arguments
                "common": {},
                "train": {},
                "suites": {},  # name -> what differs from `common`
            },
            "input": {"channels": 1, "crop": (128, 160), "batch": 16},
            "augment": {
                "flip": 0.5,
                "scale_low": 0.6,
                "scale_high": 1.6,
                "focus": 0.7,
                "contrast": 0.4,
                "brightness": 0.1,
                "noise": 0.02,
                "invert": 0.0,
            },
            "loss": {"class": 1.0, "box": 2.0, "offset": 0.25},
            "optimiser": {
                "name": "adamw",  # or "sgd"
                "lr": 2e-3,
                "weight_decay": 0.05,
                "momentum": 0.9,
                "b2": 0.999,
                "clip": 10.0,
            },
            "schedule": {"steps": 8000, "warmup": 300, "flat": 0.4, "end": 0.02},
            "ema": 0.998,
            "every": {"log": 50, "save": 500, "evaluate": 1000},
            "best_on": "val",  # the suite whose AP50 picks the best weights and counts for patience
            "patience": 0,  # evaluations without a better score before stopping; 0: never
            "nms": {"overlap": 0.65, "count": 100},
            "score": {
                "bins": {"<8": (0, 8), "8-16": (8, 16), "16-32": (16, 32), ">32": (32, 100000)},
            },
        }
    )
