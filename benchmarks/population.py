"""Cost of a member of a population, relative to the same network alone.

    python -m benchmarks.population [--rounds 9] [--members 8] [--net mobilenetv3/s-3 ..]

"vmap" runs the step of all members at once, "map" one member after the other in one program.
"""

import argparse

from benchmarks import timing, tinyjax_calls
from benchmarks.common import BATCH, NETS, SIDE

METHODS = ("vmap", "map")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--net", nargs="*", default=NETS)
    options = parser.parse_args(argv)
    members = options.members
    print(timing.describe_machine())
    print(
        f"classification, batch {BATCH}, {SIDE} x {SIDE}; ms per member of {members}, and the "
        "ratio to a single network"
    )
    print(f"{'':<20}{'single':>16}" + "".join(f"{method:>16}{'ratio':>7}" for method in METHODS))
    for net in options.net:
        candidates: dict[str, timing.Candidate] = {
            "single": (tinyjax_calls.classification_step, (net, BATCH)),
        }
        for method in METHODS:
            arguments = (net, BATCH, False, members, method)
            candidates[method] = (tinyjax_calls.classification_step, arguments)
        seconds = timing.compare(candidates, options.rounds).seconds
        row = f"{net:<20}{timing.milliseconds(seconds['single']):>16}"
        for method in METHODS:
            per_member = [value / members for value in seconds[method]]
            ratio = timing.median_ratio(per_member, seconds["single"])
            row += f"{timing.milliseconds(per_member):>16}{ratio:>7.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
