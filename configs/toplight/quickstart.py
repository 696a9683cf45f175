"""Synthetic people in visible and infrared images, found across both by shape: without and with
augmentation.

python -m tinyjax.train --config configs/toplight/quickstart.py --workdir runs/synthetic

Two networks train side by side: one only on shifted and mirrored images, one also without reliable
colors and textures. Argument: steps.
"""

from tinyjax.config import parse_arg, recognizer

AUGMENTATION = {
    "channel_exchange": 0.6,
    "gray": 0.3,
    "jitter": 0.8,
    "infrared_contrast": 0.4,
    "infrared_brightness": 0.1,
    "infrared_noise": 0.04,
}


def get_config(arg=None):
    arg = parse_arg(arg, steps=500)
    config = recognizer()
    config.model.backbone, config.model.path_blocks = "resnet/18@w0.25d0.5", 0
    config.data.format = "synthetic"
    config.data.common = {"size": (64, 32)}
    config.data.train = {"n": 120, "split": "train"}
    config.data.suites = {"val": {"n": 60, "split": "test"}}
    config.crop_size, config.batch, config.sampler.identities = (64, 32), 48, 12
    config.augment.pad, config.augment.erasing, config.ema = 4.0, 0.0, 0.98
    config.schedule.steps, config.schedule.warmup, config.schedule.decay_start = arg.steps, 50, 0.3
    config.log_every, config.save_every, config.eval_every = 50, arg.steps, arg.steps
    return config


def get_hyper(hyper):
    augmented = {f"augment.{name}": strength for name, strength in AUGMENTATION.items()}
    return [dict.fromkeys(augmented, 0.0), augmented]
