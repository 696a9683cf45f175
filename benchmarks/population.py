"""What a member of a vmapped population costs, against the same network alone.

python -m benchmarks.population [--rounds 9] [--members 8] [--net mobilenetv3/s-3 ..]
"""

import argparse

from benchmarks import contest, ours, step


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--net", nargs="*", default=step.NETS)
    options = parser.parse_args(argv)
    members, batch = options.members, step.BATCH
    print(contest.machine())
    print(f"classification, batch {batch}, {ours.SIDE} x {ours.SIDE}, {members} members vmapped")
    print(f"{'':<20}{'ms alone':>16}{'ms together':>20}{'member / alone':>18}")
    for net in options.net:
        contestants: dict[str, contest.Contestant] = {
            "together": (ours.classification_step, (net, batch, False, members)),
            "alone": (ours.classification_step, (net, batch)),
        }
        times, _, _ = contest.race(contestants, options.rounds)
        together, alone = times["together"], times["alone"]
        ratio = contest.ratio(together, alone) / members
        said = [contest.milliseconds(t) for t in (alone, together)]
        print(f"{net:<20}{said[0]:>16}{said[1]:>20}{ratio:>18.2f}", flush=True)


if __name__ == "__main__":
    main()
