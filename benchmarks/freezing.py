"""Cost of a training step in the arms of configs/studies/freezing.py.

    python -m benchmarks.freezing [--rounds 9] [--net mobilenetv3/s-3 ..]

Steps are those of a single detector, with batches of 8 windows of 144 x 144. An arm with a
regularizer costs as much as fine-tuning, plus the measurement before training.
"""

import argparse
from typing import Any

from benchmarks import timing, tinyjax_calls

BATCH = 8
ARMS: dict[str, dict[str, Any]] = {
    "all": {},
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
    print(timing.describe_machine())
    print(f"{'':<20}{'':<22}{'ms/step':>16}{'ratio':>8}{'GFLOP':>8}{'ratio':>8}")
    for net in options.net:
        arms = {name: {"model.backbone": net, **fields} for name, fields in ARMS.items()}
        candidates: dict[str, timing.Candidate] = {
            name: (tinyjax_calls.detection_step, (BATCH, False, fields))
            for name, fields in arms.items()
        }
        seconds = timing.compare(candidates, options.rounds).seconds
        flops = {n: tinyjax_calls.detection_flops(BATCH, fields) for n, fields in arms.items()}
        first, *_ = arms
        for name in arms:
            print(
                f"{net:<20}{name:<22}{timing.milliseconds(seconds[name]):>16}"
                f"{timing.median_ratio(seconds[name], seconds[first]):>8.2f}"
                f"{flops[name] / 1e9:>8.2f}{flops[name] / flops[first]:>8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
