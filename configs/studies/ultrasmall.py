"""How small can a backbone be before it fails when conditions change, and does pretraining still
help at that size? The full protocol of arXiv 2508.02927: both ladders x {scratch, ImageNet,
ImageNet -> COCO} x seeds x {LLVIP, FLIR}, tested on the other data set and on infrared.

python -m tinyjax.study --config configs/studies/ultrasmall.py --workdir runs/ultrasmall

$TINYJAX_DATA has imagenet2012/5.1.0 as prepared by TensorFlow Datasets, coco, and the unpacked
LLVIP and aligned FLIR (docs/data.md); or give their folders: imagenet, coco, llvip, flir.
Arguments, joined by commas: backbones, joined by + (default: B-1 to B-7 and S-1 to S-6); seeds,
number of seeds; epochs and images, of ImageNet; coco_epochs; steps and batch, of fine-tuning.

Each member starts from the pretrained member of the same seed. LLVIP and FLIR share only the class
person, which the report compares. The paper's ImageNet recipe is public. Its recipes for COCO
and fine-tuning, number of seeds, detector and reduction of MobileNetV3 are not: we chose these.
"""

import os
from pathlib import Path

from tinyjax.config import detector, format_arg, load, parse_arg
from tinyjax.population import search_space as hyper
from tinyjax.study import init_points

CONFIGS = Path(__file__).parent.parent
LADDERS = "+".join(
    [*(f"efficientnet/b-{k}" for k in range(1, 8)), *(f"mobilenetv3/s-{k}" for k in range(1, 7))]
)


def get_study(arg, workdir):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, backbones=LADDERS, seeds=3, epochs=88, images=1_281_167, coco_epochs=24, steps=20000,
        batch=16, imagenet=f"{root}/imagenet2012/5.1.0", coco=f"{root}/coco",
        llvip=f"{root}/LLVIP", flir=f"{root}/FLIR_aligned",
    )  # fmt: skip
    ladder = [
        hyper.sweep("model.backbone", arg.backbones.split("+")),
        hyper.sweep("seed", range(arg.seeds)),
    ]
    imagenet = format_arg(source=arg.imagenet, epochs=arg.epochs, images=arg.images)
    coco = format_arg(source=arg.coco, epochs=arg.coco_epochs)
    pretrained = load(f"{CONFIGS / 'coco.py'}:{coco}").unlock()
    pretrained.init = str(workdir / "imagenet")
    pretrained.model.strides = fine_tuning_config(arg, "llvip").model.strides  # the head is reused
    from_all = hyper.product([*ladder, init_points(workdir / "imagenet", workdir / "coco")])
    return {
        "imagenet": (load(f"{CONFIGS / 'imagenet_b.py'}:{imagenet}"), hyper.product(ladder)),
        "coco": (pretrained, hyper.product(ladder)),
        "llvip": (fine_tuning_config(arg, "llvip"), from_all),
        "flir": (fine_tuning_config(arg, "flir"), from_all),
    }


def fine_tuning_config(arg, dataset):
    """Return the config of a detector for the visible images of one data set.

    It is tested on both sets, on visible and on infrared images.
    """
    llvip = {"format": "llvip", "source": arg.llvip}
    flir = {"format": "flir_aligned", "source": arg.flir}
    tests = {
        "llvip": {**llvip, "split": "visible/test"},
        "llvip-infrared": {**llvip, "split": "infrared/test"},
        "flir": {**flir, "split": "rgb/val"},
        "flir-infrared": {**flir, "split": "thermal/val"},
    }
    config = detector()
    config.data.stream = True
    config.data.common = {"size": (512, 640), "channels": 3}
    config.data.train = {"llvip": llvip, "flir": flir}[dataset] | {
        "split": {"llvip": "visible/train", "flir": "rgb/train"}[dataset]
    }
    config.data.suites = tests
    config.monitor = dataset
    config.crop_size, config.batch = (256, 320), arg.batch
    config.schedule.steps, config.schedule.warmup = arg.steps, min(500, arg.steps // 10)
    config.update({"save_every": 1000, "eval_every": arg.steps})
    return config
