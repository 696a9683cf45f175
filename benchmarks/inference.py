"""Prediction on one image, compared with torch.

python -m benchmarks.inference [--rounds 100] [--net mobilenetv3/s-3 ..]
"""

import argparse

from benchmarks import timing, tinyjax_calls, torch_calls
from benchmarks.common import NETS, SIDE


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--net", nargs="*", default=NETS)
    options = parser.parse_args(argv)
    print(timing.describe_machine(*torch_calls.PACKAGES))
    print(f"one image of {SIDE} x {SIDE}; ratio: tinyjax / torch")
    print(timing.HEADER)
    for net in options.net:
        candidates: dict[str, timing.Candidate] = {"tinyjax": (tinyjax_calls.inference, (net,))}
        for format_ in torch_calls.FORMATS:
            candidates[f"torch {format_}"] = (torch_calls.torch_inference, (net, format_))
        timing.print_comparison(net, candidates, options.rounds)


if __name__ == "__main__":
    main()
