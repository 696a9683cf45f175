"""Errors that are the user's to mend."""

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what the user gave: a file, a field, a value.

    The message names the file, the field, the value and what would be right; a command prints it as
    one line, without a traceback, and ends with exit code 2.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, then all of them."""
    known = [str(k) for k in known]
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known) or 'none'}"


def exit_code(main: Callable[[], int]) -> int:
    """A command's exit code: `main`'s own, or 2 and the message of a `UserError`."""
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
