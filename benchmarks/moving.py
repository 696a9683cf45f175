"""What the arms of configs/studies/moving.py cost: a step of training, and one image.

    python -m benchmarks.moving [--rounds 9] [--net mobilenetv3/s-3 ..]

Steps are of one detector alone, batches of 8 windows of 144 x 144. A pull costs what fine-tuning
does, and the measurement before it.
"""

import argparse
from typing import Any

from benchmarks import contest, ours

BATCH = 8
ARMS: dict[str, dict[str, Any]] = {
    "all moves": {},
    "frozen": {"freeze": ("backbone",)},
    "frozen, strong neck": {
        "freeze": ("backbone",),
        "model.neck_width": 64,
        "model.neck_repeats": 3,
    },
}
NETS = (
    *(f"mobilenetv3/s-{k}" for k in (1, 3, 5)),
    *(f"efficientnet/b-{k}" for k in (2, 4, 6)),
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--net", nargs="*", default=NETS)
    options = parser.parse_args(argv)
    print(contest.machine())
    print(f"{'':<20}{'':<22}{'ms a step':>16}{'ratio':>8}{'GFLOP':>8}{'ratio':>8}")
    for net in options.net:
        arms = {name: {"model.backbone": net, **own} for name, own in ARMS.items()}
        times, _, _ = contest.race(
            {name: (ours.detection_step, (BATCH, False, own)) for name, own in arms.items()},
            options.rounds,
        )
        flops = {name: ours.detection_flops(BATCH, own) for name, own in arms.items()}
        first, *_ = arms
        for name in arms:
            print(
                f"{net:<20}{name:<22}{contest.milliseconds(times[name]):>16}"
                f"{contest.ratio(times[name], times[first]):>8.2f}"
                f"{flops[name] / 1e9:>8.2f}{flops[name] / flops[first]:>8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
