"""A training step, compared with the same network in torch and, for the networks of our ladders, in
plain Flax.

    python -m benchmarks.step [--rounds 15] [--net mobilenetv3/s-3 ..]

tinyjax runs its complete step: forward, backward, gradient norm, clipping, SGD, EMA, divergence
guard. torch runs forward, backward and SGD.
"""

import argparse

from benchmarks import timing, tinyjax_calls, torch_calls
from benchmarks.common import BATCH, NETS, OTHER_NETS, SIDE


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--net", nargs="*", default=NETS + OTHER_NETS)
    options = parser.parse_args(argv)
    print(timing.describe_machine(*torch_calls.PACKAGES))
    print(f"classification, batch {BATCH}, {SIDE} x {SIDE}; ratio: tinyjax / other")
    print(timing.HEADER)
    for net in options.net:
        candidates: dict[str, timing.Candidate] = {
            "tinyjax": (tinyjax_calls.classification_step, (net, BATCH))
        }
        if net in NETS:
            candidates["flax.linen.Conv"] = tinyjax_calls.classification_step, (net, BATCH, True)
        for format_ in torch_calls.FORMATS if net in NETS else torch_calls.EAGER_FORMATS:
            candidates[f"torch {format_}"] = (torch_calls.torch_step, (net, BATCH, format_))
        timing.print_comparison(net, candidates, options.rounds)
    print("detection, the step of configs/hit_uav.py with its augmentation and loss")
    candidates = {
        "tinyjax": (tinyjax_calls.detection_step, (BATCH,)),
        "flax.linen.Conv": (tinyjax_calls.detection_step, (BATCH, True)),
    }
    timing.print_comparison("S-1 detector", candidates, options.rounds)


if __name__ == "__main__":
    main()
