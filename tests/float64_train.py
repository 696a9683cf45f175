"""`tinyjax.train` in float64, where sums over devices agree to nine digits."""

import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

from tinyjax import step as steps  # noqa: E402
from tinyjax import tasks, train  # noqa: E402
from tinyjax.errors import exit_code  # noqa: E402

tasks.DTYPES = ("float64",)
init_state = steps.init_state


def wide(variables, *rest):
    return init_state(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables), *rest)


if __name__ == "__main__":
    steps.init_state = wide
    sys.exit(exit_code(train.main))
