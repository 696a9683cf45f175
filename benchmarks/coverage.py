"""Coverage of the confidence intervals in robustness reports, and error rates of the capacity
threshold, on simulated data with known true values.

    python -m benchmarks.coverage [--simulations 1000]
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from tinyjax.metrics import bootstrap, fits

NUM_IMAGES, NUM_RESAMPLES = 250, 200
SPREADS = (0.05, 0.15, 0.5)  # standard deviation between seeds, in logits
SEEDS = (1, 2, 3, 4, 5, 10)
SIZES = np.geomspace(3e3, 1e6, 6)  # parameters
SEEDS_PER_SIZE = 3
BREAK = 1e5  # parameters
# log10(parameters) -> gain, in standard deviations of the seed noise
GainCurve = Callable[[np.ndarray], np.ndarray]


def draw_hits(rng, images: np.ndarray, seeds: int, spread: float) -> np.ndarray:
    """Draw float [S, N]: 1 where a seed's prediction for an image with these logits is correct."""
    probability = expit(images + rng.normal(0, spread, (seeds, 1)))
    return (rng.random(probability.shape) < probability).astype(float)


def expected_score(rng, spread: float) -> float:
    """Return the expected score over all seeds and images."""
    return float(expit(rng.normal(0.3, np.hypot(1.5, spread), 2_000_000)).mean())


def percentile_interval(rng, replicates: np.ndarray) -> tuple[float, float]:
    """Return the interval of the usual hierarchical bootstrap.

    Seeds are drawn with replacement, together with one resample of the images.
    """
    seeds, columns = replicates.shape
    drawn = rng.integers(seeds, size=(1000, seeds))
    means = replicates[drawn, rng.integers(columns, size=(1000, 1))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def interval_coverage(
    seeds: int, spread: float, paired: bool, simulations: int
) -> tuple[float, float]:
    """Return the coverage of `bootstrap.interval`, and that of `percentile_interval`.

    paired: the interval is for the gain of one network over another of the same distribution, whose
    true value is 0; otherwise for a score.
    """
    rng = np.random.default_rng(0)
    true_value = 0.0 if paired else expected_score(rng, spread)
    covered = percentile_covered = 0
    for _ in range(simulations):
        images = rng.normal(0.3, 1.5, NUM_IMAGES)
        values = draw_hits(rng, images, seeds, spread)
        if paired:
            values -= draw_hits(rng, images, seeds, spread)
        counts = rng.multinomial(NUM_IMAGES, np.full(NUM_IMAGES, 1 / NUM_IMAGES), NUM_RESAMPLES)
        replicates = values @ counts.T / NUM_IMAGES
        estimate = bootstrap.interval(values.mean(1), replicates)
        low, high = percentile_interval(rng, replicates)
        covered += estimate.low <= true_value <= estimate.high
        percentile_covered += low <= true_value <= high
    return covered / simulations, percentile_covered / simulations


def threshold_rates(
    curve: GainCurve, simulations: int, image_spread: float = 0.5, noise: str = "normal"
) -> tuple[float, float]:
    """Return the fraction of simulations in which a threshold is found, and the fraction of these
    whose interval contains BREAK; NaN if none is found.

    The gains of SIZES x SEEDS_PER_SIZE pairs are the curve, plus seed noise of standard deviation
    1, plus image noise: one of deviation `image_spread` that the seeds of a size share, and another
    of the same deviation for each pair.

    noise: distribution of the seed noise: "normal", "tails" (Student's t with 3 degrees of freedom)
    or "unequal" (three times as large at the smallest size as at the largest).
    """
    rng = np.random.default_rng(0)
    parameters = np.repeat(SIZES, SEEDS_PER_SIZE)
    size_index = np.repeat(np.arange(len(SIZES)), SEEDS_PER_SIZE)
    pairs = len(size_index)
    scale = np.geomspace(3, 1, len(SIZES))[size_index] if noise == "unequal" else 1.0

    def image_noise(columns):
        shared = rng.normal(0, image_spread, (len(SIZES), columns))[size_index]
        return shared + rng.normal(0, image_spread, (pairs, columns))

    num_found = num_covered = 0
    for _ in range(simulations):
        seeds = rng.standard_t(3, pairs) / 3**0.5 if noise == "tails" else rng.normal(size=pairs)
        gains = 0.01 * (curve(np.log10(parameters)) + scale * seeds + image_noise(1)[:, 0])
        replicates = gains[:, None] + 0.01 * image_noise(NUM_RESAMPLES)
        result = fits.fit_threshold(parameters, gains, replicates.astype(np.float32))
        num_found += result.found
        num_covered += result.found and result.low <= BREAK <= result.high
    return num_found / simulations, num_covered / num_found if num_found else float("nan")


def broken_line(growth: float, below: float = 0.0) -> GainCurve:
    """Return a line with slope `below` up to BREAK and `growth` beyond, in standard deviations of
    the seed noise per tenfold size.
    """
    return lambda x: below * x + (growth - below) * np.maximum(0, x - np.log10(BREAK))


CURVES_WITHOUT_THRESHOLD: dict[str, GainCurve] = {
    "no gain": lambda x: 0 * x,
    "grows everywhere, 2 per decade": lambda x: 2 * x,
    "grows everywhere, 10 per decade": lambda x: 10 * x,
    "grows, then flat": lambda x: -4 * np.maximum(0, np.log10(BREAK) - x),
    "jumps by 8, then flat": lambda x: 8.0 * (x > np.log10(BREAK) - 0.3),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=1000)
    n = parser.parse_args(argv).simulations
    print(f"coverage of 95 % intervals, {n} simulations (in brackets: hierarchical bootstrap), %")
    print(f"{'':<28}" + "".join(f"{f'S = {s}':>15}" for s in SEEDS))
    for paired in (False, True):
        for spread in SPREADS:
            row = [interval_coverage(seeds, spread, paired, n) for seeds in SEEDS]
            cells = "".join(f"{f'{100 * a:.1f} ({100 * b:.1f})':>15}" for a, b in row)
            name = "gain" if paired else "score"
            print(f"{f'{name}, seed spread {spread}':<28}{cells}", flush=True)
    print(f"threshold, {len(SIZES)} sizes x {SEEDS_PER_SIZE} seeds: found, %; covered, %")
    for noise in ("normal", "tails", "unequal"):
        for images in (0.0, 0.5):
            for name, curve in CURVES_WITHOUT_THRESHOLD.items():
                found, _ = threshold_rates(curve, n, images, noise)
                print(f"{f'{noise}, images {images}, {name}':<56}{100 * found:>6.1f}", flush=True)
    for images in (0.0, 0.5):
        for growth, below in ((2, 0), (4, 0), (8, 0), (8, 2), (12, 4)):
            found, covered = threshold_rates(broken_line(growth, below), n, images)
            name = f"images {images}, {below} per decade up to {BREAK:,.0f}, then {growth}"
            print(f"{name:<56}{100 * found:>6.1f}{100 * covered:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
