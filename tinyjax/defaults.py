"""What every detection config starts from."""

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
                "dtype": "float32",  # of activations, or "bfloat16"; weights and losses stay
            },
            "data": {
                "format": "coco",  # the module of tinyjax.data whose `load` takes the rest
                "common": {},
                "train": {},
                "suites": {},  # name -> what differs from `common`
            },
            "crop": (
                128,
                160,
            ),  # window of training, in pixels of the frame; prediction is on frames
            "batch": 16,
            "augment": {
                "flip": 0.5,  # probability, as are the next two
                "flip_vertical": 0.0,
                "transpose": 0.0,  # of a square window
                "scale_low": 0.6,  # zoom, log-uniform
                "scale_high": 1.6,
                "aspect": 0.0,  # log range of width over height
                "focus": 0.7,  # probability that the window is laid around some object
                "contrast": 0.4,  # log range of the gain
                "brightness": 0.1,  # range of the offset, 1 is the full grey range
                "noise": 0.02,  # largest standard deviation, same unit
                "invert": 0.0,  # probability of turned polarity
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
            # non-maximum suppression: IoU, detections kept a frame, (cell, class) pairs that enter
            "nms": {"overlap": 0.5, "count": 300, "pool": 1000},
            "score": {
                "bins": {"<8": (0, 8), "8-16": (8, 16), "16-32": (16, 32), ">32": (32, 100000)},
            },
        }
    )
