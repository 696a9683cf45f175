"""One image through a network, against torch.

python -m benchmarks.inference [--rounds 100] [--net mobilenetv3/s-3 ..]
"""

import argparse

from benchmarks import contest, ours, rivals, step


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--net", nargs="*", default=step.NETS)
    options = parser.parse_args(argv)
    print(contest.machine(*rivals.TORCH))
    print(f"one image of {ours.SIDE} x {ours.SIDE}; ratio: ours / theirs")
    print(contest.HEADER)
    for net in options.net:
        contestants: dict[str, contest.Contestant] = {"ours": (ours.inference, (net,))}
        for form in rivals.FORMS:
            contestants[f"torch {form}"] = (rivals.torch_inference, (net, form))
        contest.print_race(net, contestants, options.rounds)


if __name__ == "__main__":
    main()
