"""A detector that cannot learn eight images by heart has a bug in its pixels, targets or boxes."""

import jax
import jax.numpy as jnp

from tests import tiny_config
from tinyjax import step as steps
from tinyjax.data import synthetic
from tinyjax.tasks import detect


def test_eight_images_to_ap50_one():
    config = tiny_config.get_config()
    config.model.backbone = "mobilenetv3/s-3"
    still = {
        "flip": 0.0,
        "scale_low": 1.0,
        "scale_high": 1.0,
        "focus": 0.0,
        "contrast": 0.0,
        "brightness": 0.0,
        "noise": 0.0,
    }
    config.augment.update(still)
    split = synthetic.load(8, (64, 64), seed=3)
    task = detect.make_task(config, split.classes)
    tx = steps.make_optimiser("adamw", 0.9, 0.999, 10.0)
    step = jax.jit(
        steps.make_step(task, tx, steps.make_schedule(250, 20, 0.5, 0.02)), donate_argnums=0
    )
    hyper = {
        "seed": 0, "lr": 5e-3, "weight_decay": 0.0, "ema": 0.98,
        "augment": config.augment.to_dict(), "loss": config.loss.to_dict(),
    }  # fmt: skip
    hyper = jax.tree.map(jnp.asarray, hyper)
    batch = {
        k: jnp.asarray(getattr(split, k)) for k in ("images", "boxes", "labels", "valid", "ignore")
    }
    state = steps.init_state(task, tx, 0)
    for _ in range(250):
        state, _ = step(state, batch, hyper)
    scores = task.score(detect.predict_all(task, state.ema, split.images, batch=8), split)
    assert scores["boxes"] >= 12
    assert scores["AP50"] == 1.0
