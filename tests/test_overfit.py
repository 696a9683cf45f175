"""A detector that cannot overfit eight images has a bug in its pixels, targets or boxes."""

import jax
import pytest

from tests.configs import detector
from tests.tiny_backbones import TINY_WIDE
from tinyjax import step as steps
from tinyjax.data.synthetic import dataset
from tinyjax.population.networks import input_shapes
from tinyjax.population.prediction import predict_all
from tinyjax.population.stack import hyper_arrays
from tinyjax.tasks import detect


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "num_steps", "lr", "ema"),
    [
        (TINY_WIDE, 80, 1e-2, 0.94),
        ("mobilenetv3/s-3", 250, 5e-3, 0.98),
    ],
)
def test_eight_images_reach_an_ap50_of_1(backbone, num_steps, lr, ema):
    config = detector.get_config()
    config.model.backbone = backbone
    for name in ("flip", "object_crop", "contrast", "brightness", "noise"):
        config.augment[name] = 0.0
    config.augment.scale_low = config.augment.scale_high = 1.0
    config.optimizer.lr, config.optimizer.weight_decay, config.ema = lr, 0.0, ema
    split = dataset.load(8, (64, 64), seed=3)
    model = detect.model_functions(config, split.classes, input_shapes(split))
    tx = steps.make_optimizer("adamw", 0.9, 0.999, 10.0)
    step = steps.make_step(model, tx, steps.make_schedule(num_steps, 20, 0.5, 0.02))
    step = jax.jit(step, donate_argnums=0)
    hyper, batch = hyper_arrays(config), detect.device_arrays(split)
    state = steps.init_state(model.init(0), tx)
    for _ in range(num_steps):
        state, _ = step(state, batch, hyper)
    averaged = state.variables(state.ema)
    predictions = predict_all(model.predict, averaged, split.inputs, batch=8)
    (scores,) = detect.score(predictions, split, config)
    assert scores["boxes"] >= 12
    assert scores["AP50"] == 1.0
