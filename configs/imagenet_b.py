"""ImageNet-1k for the EfficientNet ladder, by the recipe published with arXiv 2508.02927.

python -m tinyjax.train --config configs/imagenet_b.py:backbone=efficientnet/b-3 --workdir runs/b-3

Arguments: backbone; source, by default $TINYJAX_DATA/imagenet2012/5.1.0 as prepared by TensorFlow
Datasets (docs/data.md); format, tfds (default), or folder for ImageNet-mini, list for DomainNet;
images, the number of training images, which sets the length of an epoch; epochs; workers, processes
that decode images.
"""

import math
import os

from tinyjax.config import classifier, parse_arg


def get_config(arg=None):
    config = classifier()
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, backbone="efficientnet/b-3", source=f"{root}/imagenet2012/5.1.0", format="tfds",
        images=1_281_167, epochs=88, workers=0,
    )  # fmt: skip
    config.model.backbone, config.model.dtype = arg.backbone, "bfloat16"  # the paper: float16
    config.data.format, config.data.stream, config.data.workers = arg.format, True, arg.workers
    # Scored on the central 0.875 of the image at 256 pixels, averaged with its mirror image.
    config.data.common = {"source": arg.source, "size": (256, 256), "fit": "center"}
    config.data.train = {"split": "train"}
    config.data.suites = {"val": {"split": "validation" if arg.format == "tfds" else "val"}}
    config.predict.flip = True
    # Only RandomResizedCrop (area 0.08 to 1, aspect ratio 3/4 to 4/3) and horizontal flips.
    config.crop_size, config.batch = (224, 224), 392
    config.augment.update({"area": 0.08, "aspect": math.log(16 / 9), "contrast": 0.0})
    config.augment.brightness = 0.0
    config.loss.label_smoothing, config.loss.class_balance = 0.1, 0.0
    # In the paper weight decay of 1e-4 goes through the momentum: 1 / (1 - 0.9) times stronger.
    config.optimizer.update({"name": "sgd", "lr": 0.05, "weight_decay": 1e-3, "clip_norm": 0.0})
    epoch = arg.images // config.batch
    config.schedule.update({"steps": arg.epochs * epoch, "warmup": 2 * epoch})
    config.schedule.update({"shape": "linear", "decay_start": 0.0, "final_lr_scale": 0.0})
    config.ema = 0.0  # no averaging
    config.update({"log_every": 100, "save_every": epoch, "eval_every": 8 * epoch})
    return config
