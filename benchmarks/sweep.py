"""A sweep as one command, compared with training its networks one by one.

    python -m benchmarks.sweep [--steps 300] [--only sweep torch ..]

S-1 to S-6 with four seeds on configs/caltech101.py, batches of 16. Complete commands are timed:
start, compilation, training and one evaluation, each with an empty compilation cache. This file is
also the config of the sweep. The candidates:

    sweep      one command
    processes  one command per network
    in turn    one process that trains the networks one after the other
    torch      the same in torch, in the faster format for these networks; it only flips images,
               whereas tinyjax also crops, zooms, mixes and changes brightness; it has no EMA
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing, torch_calls
from tinyjax.config import load, parse_arg

BACKBONES, SEEDS = [f"mobilenetv3/s-{k}" for k in range(1, 7)], range(4)
BATCH = 16
CANDIDATES = ("sweep", "processes", "in turn", "torch")
IN_TURN = "import sys; from tinyjax.train import main; [main(a.split()) for a in sys.argv[1:]]"
TORCH = "import sys; from benchmarks import sweep; sweep.torch_runs(int(sys.argv[1]))"


def get_config(arg=None):
    arg = parse_arg(arg, steps=300)
    config = load(f"{Path(__file__).parents[1]}/configs/caltech101.py:steps={arg.steps}")
    config.batch, config.eval_every = BATCH, arg.steps
    return config


def get_hyper(hyper):
    return hyper.product([hyper.sweep("model.backbone", BACKBONES), hyper.sweep("seed", SEEDS)])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=CANDIDATES, choices=CANDIDATES)
    options = parser.parse_args(argv)
    print(timing.describe_machine(*torch_calls.PACKAGES))
    print(f"24 networks of {options.steps} steps; seconds, and the ratio of the sweep to each")
    seconds: dict[str, float] = {}
    for name in options.only:
        if name == "torch":
            try:
                torch_calls.check_installed()
            except ImportError as error:
                print(f"{name:<12}{error}")
                continue
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/programs"}
            start = time.perf_counter()
            for command in commands(name, options.steps, folder):
                line = [sys.executable, *command]
                subprocess.run(line, env=env, check=True, stdout=subprocess.DEVNULL)
            seconds[name] = time.perf_counter() - start
        ratio = f"{seconds['sweep'] / seconds[name]:>8.2f}" if "sweep" in seconds else ""
        print(f"{name:<12}{seconds[name]:>8.0f}{ratio}", flush=True)


def commands(name: str, steps: int, folder: str) -> list[list[str]]:
    """Return the commands of a candidate, without the interpreter."""
    config = f"--config {__file__}:steps={steps} --workdir {folder}/run"
    single_runs = [
        f"{config}-{seed}-{backbone.replace('/', '-')} --sweep.only model.backbone={backbone} "
        f"--sweep.only seed={seed}"
        for backbone, seed in itertools.product(BACKBONES, SEEDS)
    ]
    return {
        "sweep": [["-m", "tinyjax.train", *config.split()]],
        "processes": [["-m", "tinyjax.train", *args.split()] for args in single_runs],
        "in turn": [["-c", IN_TURN, *single_runs]],
        "torch": [["-c", TORCH, str(steps)]],
    }[name]


def torch_runs(steps: int) -> None:
    """Train the networks with torch, one after the other, and score each."""
    import numpy as np
    import torch

    from tinyjax.tasks import classify

    config = get_config()
    training = classify.load(config.data, config.data.train)
    test = classify.load(config.data, config.data.suites.test, training.classes)
    torch.set_flush_denormal(True)

    def to_input(images):  # uint8 b h w c -> b c h w
        return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.45) / 0.25

    for backbone, seed in itertools.product(BACKBONES, SEEDS):
        torch.manual_seed(seed)
        model = torch_calls.torch_network(backbone, len(training.classes))
        optimizer = torch.optim.AdamW(model.parameters(), config.optimizer.lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        criterion = torch.nn.CrossEntropyLoss(label_smoothing=config.loss.label_smoothing)
        order = np.random.default_rng(seed).permutation(len(training.inputs["image"]))
        for step in range(steps):
            index = order[np.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
            x = to_input(training.inputs["image"][index])
            x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
            optimizer.zero_grad(set_to_none=True)
            criterion(model(x), torch.from_numpy(training.labels[index]).long()).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            batches = np.array_split(test.inputs["image"], 50)
            predicted = torch.cat([model(to_input(batch)).argmax(1) for batch in batches])
        correct = predicted.numpy() == test.labels
        print(f"{backbone}, seed {seed}: top-1 {correct.mean():.3f}", file=sys.stderr)


if __name__ == "__main__":
    main()
