"""Which parts of TOPLight (CVPR 2023) help a small network to find people across visible and
infrared images, and how small can the network be?

python -m tinyjax.study --config configs/studies/toplight.py --workdir runs/toplight

The nine rows of the paper's Table 3, the alternatives of its Table 5, and a ladder of backbones. By
default on synthetic people: networks are pretrained on people whom only visible cameras have seen,
fine-tuned on 40 others and tested on 60 others. Stages:

    classifier                 row 1: crop and flip, cross-entropy
    generic, task, consistent, domain
                               rows 2 to 5, from row 1 with two paths: generic views; color and
                               texture; L_idc instead of L_id; and L_fd. The copies of blocks 2 to 4
                               are averaged afterwards
    table3                     fine-tuning from each, and, from `domain`, with FDR: attention only,
                               horizontal stripes, vertical ones too, and interpolation; and row 1
                               with a single path
    table5                     the alternatives of FDR's pooling and attention
    ladder, capacity           backbones of the ladder, pretrained as in row 5 but without row 1;
                               then fine-tuned, from scratch and from there, at the full rate

Arguments, joined by commas: backbone, of the tables; backbones, of the ladder, joined by +; seeds,
number of seeds; first_seed, to add seeds in a second folder; pretraining, steps of row 1;
retraining, of rows 2 to 5; steps, of the fine-tuning; people, number that pretrain, and identities,
that fine-tune; fdr, horizontal and vertical, block and stripes of FDR. With real data: classes, a
folder of classes with the splits train and test instead of the people; source, a folder of one of
the formats of docs/recognition.md, and format; height and width of all images.
"""

from pathlib import Path

from tinyjax.config import classifier, definitions, format_arg, load, parse_arg
from tinyjax.population import search_space as hyper

TOPLIGHT = Path(__file__).parent.parent / "toplight"
LADDER = "+".join(  # 2 M to 25,000 parameters
    [
        *(f"mobilenetv3/{name}" for name in ("large@w0.8", "small", "s-1", "s-3", "s-5")),
        *(f"efficientnet/b-{k}" for k in (2, 4, 7)),
    ]
)
AVERAGE = {"average": ("--path-blocks", "1")}
TABLE5 = [
    *({"fdr.pooling": name, "fdr.attention": "shuffle"} for name in ("context", "hap")),
    *({"fdr.pooling": "stripes", "fdr.attention": name} for name in ("grouped", "se", "cbam")),
]


def get_study(arg, workdir):
    arg = parse_arg(
        arg, backbone="mobilenetv3/s-1", backbones=LADDER, seeds=3, first_seed=0,
        pretraining=2000, retraining=1500, steps=1000, people=160, identities=40, fdr=3,
        horizontal=4, vertical=2, classes="", source="", format="pairs", height=64, width=32,
    )  # fmt: skip
    seeds = hyper.sweep("seed", range(arg.first_seed, arg.first_seed + arg.seeds))
    retrained = {
        name: retraining_config(arg, init=str(workdir / "classifier"), **options)
        for name, options in {
            "generic": {"task": False, "consistency": 0.0, "domain": 0.0},
            "task": {"consistency": 0.0, "domain": 0.0},
            "consistent": {"domain": 0.0},
            "domain": {},
        }.items()
    }
    starts = [workdir / "classifier", *(workdir / f"{name}/averages/paths-1" for name in retrained)]
    no_fdr = {
        "model.path_blocks": 1, "fdr.block": 0, "fdr.pooling": "stripes", "fdr.vertical": 0,
        "fdr.upsample": False,
    }  # fmt: skip
    fdr = {**no_fdr, "fdr.block": arg.fdr}
    rows = [
        *({"init": str(start), **no_fdr} for start in starts),
        *(
            {"init": str(starts[-1]), **fdr, **changes}
            for changes in (
                {"fdr.pooling": "gap"},
                {},
                {"fdr.vertical": arg.vertical},
                {"fdr.vertical": arg.vertical, "fdr.upsample": True},
            )
        ),
        {"init": str(starts[0]), **no_fdr, "model.path_blocks": 0},
    ]
    alternatives = fine_tuning_config(arg)
    alternatives.init, alternatives.fdr.block = str(starts[-1]), arg.fdr
    ladder = [hyper.sweep("model.backbone", arg.backbones.split("+")), seeds]
    both = hyper.sweep("init", ("", str(workdir / "ladder/averages/paths-1")))
    capacity = fine_tuning_config(arg)
    capacity.optimizer.backbone_lr_scale = 1.0  # the arm from scratch needs the full rate
    return {
        "classifier": (classifier_config(arg), seeds),
        **{name: (config, seeds, AVERAGE) for name, config in retrained.items()},
        "table3": (fine_tuning_config(arg), hyper.product([rows, seeds])),
        "table5": (alternatives, hyper.product([TABLE5, seeds])),
        "ladder": (retraining_config(arg), hyper.product(ladder), AVERAGE),
        "capacity": (capacity, hyper.product([*ladder, both])),
    }


def classifier_config(arg):
    return with_classes(classifier(), arg, arg.pretraining)


def retraining_config(arg, **options):
    options = format_arg(**options)
    return with_classes(load(f"{TOPLIGHT / 'pretrain.py'}:{options}").unlock(), arg, arg.retraining)


def with_classes(config, arg, steps):
    """Set the data, people or a folder of classes, the size of the images and the steps."""
    config.model.backbone, config.crop_size = arg.backbone, (arg.height, arg.width)
    config.data.format = "folder" if arg.classes else "synthetic"
    data = {"source": arg.classes, "channels": 3} if arg.classes else {"n": arg.people}
    config.data.common = {**data, "size": (arg.height, arg.width)}
    config.data.train, config.data.suites = {"split": "train"}, {"test": {"split": "test"}}
    config.monitor, config.batch, config.eval_every = "test", 64, steps
    config.schedule.steps, config.schedule.warmup = steps, steps // 10
    return config


def fine_tuning_config(arg):
    """The recipe of the quickstart for synthetic people, that of own.py for real images."""
    if arg.source:
        recipe = format_arg(
            source=arg.source, format=arg.format, paths=1, height=arg.height, width=arg.width,
            steps=arg.steps, val=0.0, init="classifier",
        )  # fmt: skip
        config = load(f"{TOPLIGHT / 'own.py'}:{recipe}").unlock()
    else:
        quickstart = definitions(str(TOPLIGHT / "quickstart.py"), "get_hyper")
        config = quickstart["get_config"](f"steps={arg.steps}")
        config.augment.update(quickstart["AUGMENTATION"])
        config.data.common = {"size": (arg.height, arg.width)}
        config.data.train["n"], config.crop_size = arg.identities, (arg.height, arg.width)
    config.model.backbone, config.model.path_blocks, config.eval_every = arg.backbone, 1, arg.steps
    config.fdr.block, config.fdr.horizontal, config.fdr.vertical = 0, arg.horizontal, arg.vertical
    return config
