"""A training step against the same network by other means.

    python -m benchmarks.step [--rounds 15] [--net mobilenetv3/s-3 ..]

Ours is the whole step of the product: gradient norm, clip, SGD, EMA, the guard against what is not
finite; torch's is forward, backward and SGD.
"""

import argparse

from benchmarks import contest, ours, rivals

NETS = ("mobilenetv3/s-0", "mobilenetv3/s-3", "efficientnet/b-1", "efficientnet/b-3",
        "efficientnet/b-5")  # fmt: skip
BATCH = 16


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--net", nargs="*", default=NETS)
    options = parser.parse_args(argv)
    print(contest.machine(*rivals.TORCH))
    print(f"classification, batch {BATCH}, {ours.SIDE} x {ours.SIDE}; ratio: ours / theirs")
    print(contest.HEADER)
    for net in options.net:
        contestants: dict[str, contest.Contestant] = {
            "ours": (ours.classification_step, (net, BATCH)),
            "flax.linen.Conv": (ours.classification_step, (net, BATCH, True)),
        }
        for form in rivals.FORMS:
            contestants[f"torch {form}"] = (rivals.torch_step, (net, BATCH, form))
        contest.print_race(net, contestants, options.rounds)
    print("detection, the step of configs/hit_uav.py with its augmentation and loss")
    contestants = {
        "ours": (ours.detection_step, (BATCH,)),
        "flax.linen.Conv": (ours.detection_step, (BATCH, True)),
    }
    contest.print_race("S-1 detector", contestants, options.rounds)


if __name__ == "__main__":
    main()
