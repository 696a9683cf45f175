"""The forms that a program has on another platform, traced and run on this one."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from jax import lax


@contextmanager
def forms_of(platform: str) -> Iterator[None]:
    """While a function is traced, `lax.platform_dependent` takes the form of a platform."""

    def choose(*operands, default, **forms):
        return forms.get(platform, default)(*operands)

    with mock.patch.object(lax, "platform_dependent", choose):
        yield
