"""`tinyjax.train` in float64, in which sums over devices agree to nine digits."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from tinyjax import step as steps  # noqa: E402
from tinyjax import tasks  # noqa: E402
from tinyjax.errors import exit_code  # noqa: E402
from tinyjax.population import stack  # noqa: E402
from tinyjax.train import main  # noqa: E402

tasks.DTYPES = ("float64",)
init_state, hyper_arrays = steps.init_state, stack.hyper_arrays


def init_float64_state(variables, *args):
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    return init_state(variables, *args)


def strongly_typed_hyper_arrays(*args):
    """The product of a weakly typed learning rate, which a single member has in a single process,
    and a schedule's float32 would be float32.
    """
    return jax.tree.map(np.asarray, hyper_arrays(*args))


if __name__ == "__main__":
    steps.init_state = init_float64_state
    stack.hyper_arrays = strongly_typed_hyper_arrays
    sys.exit(exit_code(main))
