"""What a member of a population costs, against the same network alone.

    python -m benchmarks.population [--rounds 9] [--members 8] [--net mobilenetv3/s-3 ..]

"vmap" takes the step of all members at once, "map" one after the other in one program.
"""

import argparse

from benchmarks import contest, ours, step

LIFTS = ("vmap", "map")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--net", nargs="*", default=step.NETS)
    options = parser.parse_args(argv)
    members, batch = options.members, step.BATCH
    print(contest.machine())
    print(
        f"classification, batch {batch}, {ours.SIDE} x {ours.SIDE}; ms a member of {members}, and "
        "the ratio to alone"
    )
    print(f"{'':<20}{'alone':>16}" + "".join(f"{lift:>16}{'ratio':>7}" for lift in LIFTS))
    for net in options.net:
        contestants: dict[str, contest.Contestant] = {
            "alone": (ours.classification_step, (net, batch)),
        }
        for lift in LIFTS:
            contestants[lift] = (ours.classification_step, (net, batch, False, members, lift))
        times, _, _ = contest.race(contestants, options.rounds)
        row = f"{net:<20}{contest.milliseconds(times['alone']):>16}"
        for lift in LIFTS:
            each = [seconds / members for seconds in times[lift]]
            row += f"{contest.milliseconds(each):>16}{contest.ratio(each, times['alone']):>7.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
