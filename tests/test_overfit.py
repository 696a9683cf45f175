"""A detector that cannot learn eight images by heart has a bug in its pixels, targets or boxes."""

import jax

from tests.configs import detector
from tinyjax import step as steps
from tinyjax import tasks
from tinyjax.data.synthetic import dataset
from tinyjax.tasks import detect


def test_eight_images_to_ap50_one():
    config = detector.get_config()
    config.model.backbone = "mobilenetv3/s-3"
    for name in ("flip", "object_crop", "contrast", "brightness", "noise"):
        config.augment[name] = 0.0
    config.augment.scale_low = config.augment.scale_high = 1.0
    config.optimizer.lr, config.optimizer.weight_decay, config.ema = 5e-3, 0.0, 0.98
    split = dataset.load(8, (64, 64), seed=3)
    task = detect.make_task(config, split.classes, channels=1)
    tx = steps.make_optimizer("adamw", 0.9, 0.999, 10.0)
    step = steps.make_step(task, tx, steps.make_schedule(250, 20, 0.5, 0.02))
    step, hyper, batch = (
        jax.jit(step, donate_argnums=0),
        tasks.hyper_of(config),
        detect.on_device(split),
    )
    state = steps.init_state(task.init(0), tx)
    for _ in range(250):
        state, _ = step(state, batch, hyper)
    averaged = state.variables(state.ema)
    found = tasks.predict_all(task.predict, averaged, split.images, batch=8)
    (scores,) = task.score(found, split)
    assert scores["boxes"] >= 12
    assert scores["AP50"] == 1.0
