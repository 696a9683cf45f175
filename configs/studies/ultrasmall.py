"""How small can a backbone get before it breaks when conditions change, and does pretraining still
help there? The protocol of arXiv 2508.02927, whole: both ladders x {scratch, ImageNet, ImageNet ->
COCO} x seeds x {LLVIP, FLIR}, tested on the other set and on infrared.

python -m tinyjax.study --config configs/studies/ultrasmall.py --workdir runs/ultrasmall

In $TINYJAX_DATA: imagenet2012/5.1.0 as TensorFlow Datasets prepares it, coco, LLVIP and the aligned
FLIR as they unpack (docs/data.md); or name their places: imagenet, coco, llvip, flir. Arguments,
joined by commas: backbones, joined by + (default: B-1 .. B-7 and S-1 .. S-6); seeds, how many;
epochs, of ImageNet, and images, how many it has; coco_epochs; steps of fine-tuning; batch of it.

Seed k starts from seed k. LLVIP and FLIR share only person, which the report compares. The authors'
ImageNet recipe is public; COCO's, fine-tuning's, the number of seeds and the detector are not, nor
how they cut down MobileNetV3: those are our own choice.
"""

import os
from pathlib import Path

from tinyjax.config import detector, load, parse_arg
from tinyjax.population import search_space as hyper
from tinyjax.study import starts

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
    imagenet = f"source={arg.imagenet},epochs={arg.epochs},images={arg.images}"
    coco = f"source={arg.coco},epochs={arg.coco_epochs}"
    pretrained = load(f"{CONFIGS / 'coco.py'}:{coco}").unlock()
    pretrained.init = str(workdir / "imagenet")
    pretrained.model.strides = fine_tuned(arg, "llvip").model.strides  # whose head goes on
    three = hyper.product([*ladder, starts(workdir / "imagenet", workdir / "coco")])
    return {
        "imagenet": (load(f"{CONFIGS / 'imagenet_b.py'}:{imagenet}"), hyper.product(ladder)),
        "coco": (pretrained, hyper.product(ladder)),
        "llvip": (fine_tuned(arg, "llvip"), three),
        "flir": (fine_tuned(arg, "flir"), three),
    }


def fine_tuned(arg, on):
    """A detector for visible light on one of the two sets: tested there, on the other's visible
    images, and on its own infrared ones.
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
    config.data.train = {"llvip": llvip, "flir": flir}[on] | {
        "split": {"llvip": "visible/train", "flir": "rgb/train"}[on]
    }
    config.data.suites = tests
    config.monitor = on
    config.crop_size, config.batch = (256, 320), arg.batch
    config.schedule.steps, config.schedule.warmup = arg.steps, min(500, arg.steps // 10)
    config.update({"save_every": 1000, "eval_every": arg.steps})
    return config
