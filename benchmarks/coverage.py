"""How often the intervals of the robustness report hold the truth, and how often its threshold is
found where there is none: simulations of what is known.

    python -m benchmarks.coverage [--simulations 1000]
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from tinyjax.metrics import bootstrap, fits

IMAGES, RESAMPLES = 250, 200
SPREADS = (0.05, 0.15, 0.5)  # standard deviation of seeds, in logits
SEEDS = (1, 2, 3, 4, 5, 10)
SIZES = np.geomspace(3e3, 1e6, 6)
OF_SEEDS = 3
BREAK = 1e5
Shape = Callable[[np.ndarray], np.ndarray]  # gain at log10(parameters), in its seeds' deviations


def hits(rng, images: np.ndarray, seeds: int, spread: float) -> np.ndarray:
    """float [S, N]: whether seeds of a network are right on images of a logit each."""
    chance = expit(images + rng.normal(0, spread, (seeds, 1)))
    return (rng.random(chance.shape) < chance).astype(float)


def expected(rng, spread: float) -> float:
    """Score of a seed over all seeds and images."""
    return float(expit(rng.normal(0.3, np.hypot(1.5, spread), 2_000_000)).mean())


def percentiles(rng, replicates: np.ndarray) -> tuple[float, float]:
    """The usual hierarchical bootstrap: seeds drawn with replacement, and a resample of images."""
    seeds, columns = replicates.shape
    drawn = rng.integers(seeds, size=(1000, seeds))
    means = replicates[drawn, rng.integers(columns, size=(1000, 1))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def intervals(seeds: int, spread: float, paired: bool, simulations: int) -> tuple[float, float]:
    """Part of the intervals that hold the truth: ours, and percentiles. Of a score, or of the gain
    of one network over another of the same distribution, whose truth is 0.
    """
    rng = np.random.default_rng(0)
    truth = 0.0 if paired else expected(rng, spread)
    ours = theirs = 0
    for _ in range(simulations):
        images = rng.normal(0.3, 1.5, IMAGES)
        values = hits(rng, images, seeds, spread)
        if paired:
            values -= hits(rng, images, seeds, spread)
        counts = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), RESAMPLES)
        replicates = values @ counts.T / IMAGES
        found = bootstrap.interval(values.mean(1), replicates)
        low, high = percentiles(rng, replicates)
        ours += found.low <= truth <= found.high
        theirs += low <= truth <= high
    return ours / simulations, theirs / simulations


def thresholds(
    shape: Shape, simulations: int, images: float = 0.5, noise: str = "normal"
) -> tuple[float, float]:
    """Part of simulations in which a threshold is found, and part of these whose interval holds
    BREAK; NaN if none is found.

    Gains of SIZES x OF_SEEDS pairs: shape + seeds, deviation 1, + images, deviation `images` for
    what the seeds of a size share and as much again for each pair. noise: "normal", "tails"
    (Student's with 3 degrees of freedom), "unequal" (three times as large at the smallest size as
    at the largest).
    """
    rng = np.random.default_rng(0)
    sizes = np.repeat(SIZES, OF_SEEDS)
    own = np.repeat(np.arange(len(SIZES)), OF_SEEDS)
    scale = np.geomspace(3, 1, len(SIZES))[own] if noise == "unequal" else 1.0

    def of_images(columns):
        shared = rng.normal(0, images, (len(SIZES), columns))[own]
        return shared + rng.normal(0, images, (len(own), columns))

    found = held = 0
    for _ in range(simulations):
        seeds = (
            rng.standard_t(3, len(own)) / 3**0.5 if noise == "tails" else rng.normal(size=len(own))
        )
        gains = 0.01 * (shape(np.log10(sizes)) + scale * seeds + of_images(1)[:, 0])
        replicates = gains[:, None] + 0.01 * of_images(RESAMPLES)
        result = fits.threshold(sizes, gains, replicates.astype(np.float32))
        found += result.found
        held += result.found and result.low <= BREAK <= result.high
    return found / simulations, held / found if found else float("nan")


def growing(growth: float, below: float = 0.0) -> Shape:
    """Growth from BREAK on and below it, in deviations of seeds per tenfold size."""
    return lambda x: below * x + (growth - below) * np.maximum(0, x - np.log10(BREAK))


NULLS: dict[str, Shape] = {
    "no gain": lambda x: 0 * x,
    "grows everywhere, 2 a decade": lambda x: 2 * x,
    "grows everywhere, 10 a decade": lambda x: 10 * x,
    "grows, then flat": lambda x: -4 * np.maximum(0, np.log10(BREAK) - x),
    "jumps by 8, then flat": lambda x: 8.0 * (x > np.log10(BREAK) - 0.3),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000)
    n = parser.parse_args(argv).simulations
    print(f"intervals of 95 %, {n} simulations: ours (percentiles of a hierarchical bootstrap), %")
    print(f"{'':<28}" + "".join(f"{f'S = {s}':>15}" for s in SEEDS))
    for paired in (False, True):
        for spread in SPREADS:
            row = [intervals(seeds, spread, paired, n) for seeds in SEEDS]
            cells = "".join(f"{f'{100 * a:.1f} ({100 * b:.1f})':>15}" for a, b in row)
            name = "gain" if paired else "score"
            print(f"{f'{name}, seeds differ by {spread}':<28}{cells}", flush=True)
    print(f"threshold, {len(SIZES)} sizes x {OF_SEEDS} seeds: found, %; interval holds it, %")
    for noise in ("normal", "tails", "unequal"):
        for images in (0.0, 0.5):
            for name, shape in NULLS.items():
                found, _ = thresholds(shape, n, images, noise)
                print(f"{f'{noise}, images {images}, {name}':<56}{100 * found:>6.1f}", flush=True)
    for images in (0.0, 0.5):
        for growth, below in ((2, 0), (4, 0), (8, 0), (8, 2), (12, 4)):
            found, held = thresholds(growing(growth, below), n, images)
            name = f"images {images}, {below} a decade up to {BREAK:,.0f}, then {growth}"
            print(f"{name:<56}{100 * found:>6.1f}{100 * held:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
