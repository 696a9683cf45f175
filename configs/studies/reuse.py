"""Does freezing the backbone pay off if enough of the detector is trained? Proper Reuse (arXiv
2204.00484) at our size.

python -m tinyjax.study --config configs/studies/reuse.py --workdir runs/reuse

Three decoders (FPN and NAS-FPN with RetinaNet's head, NAS-FPN with Cascade R-CNN's) x {from
scratch, fine-tuned, frozen, frozen with adapters} x two backbones x seeds on HIT-UAV. With a frozen
backbone, 6 to 57 % of the parameters are trained. All arms but the first start from classifiers of
Caltech-101 in gray, which the study trains first; or, with the argument capacity, from those in the
folder of a finished configs/studies/capacity.py. Further arguments, joined by commas: backbones
and decoders, joined by +; seeds, number of seeds; pretraining, number of steps on Caltech-101;
steps and lr, on HIT-UAV. Each decoder has another size, to tell its type from its share of the
parameters: fpn_wide, nasfpn_dense, cascade_separable.
"""

from pathlib import Path

from tinyjax.config import definitions, format_arg, load, parse_arg
from tinyjax.errors import UserError, suggest
from tinyjax.population import search_space as hyper

HIT_UAV = Path(__file__).parent.parent / "hit_uav.py"
CAPACITY = definitions(str(Path(__file__).with_name("capacity.py")), "get_study")
DECODERS = {  # name -> detector, neck, its repeats, size
    "fpn": ("retinanet", "fpn", 1, {"model.neck_width": 48}),
    "fpn_wide": ("retinanet", "fpn", 1, {"model.neck_width": 80}),
    "nasfpn": ("retinanet", "nasfpn", 3, {"model.neck_separable": True}),
    "nasfpn_dense": ("retinanet", "nasfpn", 3, {"model.neck_separable": False}),
    "cascade": ("cascade_rcnn", "nasfpn", 3, {"roi.head": "fc"}),
    "cascade_separable": ("cascade_rcnn", "nasfpn", 3, {"roi.head": "separable"}),
}


def get_study(arg, workdir):
    arg = parse_arg(
        arg, capacity="", backbones="mobilenetv3/s-1+efficientnet/b-2",
        decoders="fpn+nasfpn+cascade", seeds=3, pretraining=4000, steps=1200, lr=0.016,
    )  # fmt: skip
    stages, classifiers = {}, f"{arg.capacity or workdir}/caltech101"
    if not arg.capacity:
        ladder = format_arg(backbones=arg.backbones, seeds=arg.seeds, pretraining=arg.pretraining)
        stages["caltech101"] = CAPACITY["get_study"](ladder, workdir)["caltech101"]
    for name in arg.decoders.split("+"):
        if name not in DECODERS:
            raise UserError(
                f"configs/studies/reuse.py: decoders: {name!r}: {suggest(name, DECODERS)}"
            )
        detector, neck, repeats, size = DECODERS[name]
        options = format_arg(detector=detector, neck=neck, batch=8, lr=arg.lr, steps=arg.steps)
        config = load(f"{HIT_UAV}:{options}").unlock()
        config.model.neck_repeats, config.eval_every = repeats, arg.steps
        members = [
            hyper.sweep("model.backbone", arg.backbones.split("+")),
            [size],
            arms(classifiers),
            hyper.sweep("seed", range(arg.seeds)),
        ]
        stages[name] = (config, hyper.product(members))
    return stages


def arms(classifiers):
    """From scratch, fine-tuned, frozen, and frozen with adapters."""
    fine_tuned = {"init": classifiers, "freeze": (), "model.adapters": False}
    frozen = {**fine_tuned, "freeze": ("backbone",)}
    return [{**fine_tuned, "init": ""}, fine_tuned, frozen, {**frozen, "model.adapters": True}]
