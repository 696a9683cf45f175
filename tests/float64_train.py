"""`tinyjax.train` in float64, in which sums over devices agree to nine digits."""

import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

from tinyjax import step as steps  # noqa: E402
from tinyjax import tasks  # noqa: E402
from tinyjax.errors import exit_code  # noqa: E402
from tinyjax.train import main  # noqa: E402

tasks.DTYPES = ("float64",)
init_state = steps.init_state


def init_float64_state(variables, *args):
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    return init_state(variables, *args)


if __name__ == "__main__":
    steps.init_state = init_float64_state
    sys.exit(exit_code(main))
