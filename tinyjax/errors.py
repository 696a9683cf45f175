"""Errors that are the user's to mend."""

import errno
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what the user gave: a file, a field, a value.

    The message names the file, the field, the value and what would be right; a command prints it as
    one line, without a traceback, and ends with exit code 2.
    """


EX_UNAVAILABLE = 69  # EX_UNAVAILABLE: another machine, or another try, may do


class MachineError(Exception):
    """The machine, or those it should meet, are not what they should be; exit code `UNFIT`."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, then all of them."""
    known = [str(k) for k in known]
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known) or 'none'}"


def shorten(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    first, more = (names := [*names])[:3], len(names) - 3
    return (", ".join(first) or "none") + (f" and {more} more" if more > 0 else "")


def exit_code(main: Callable[[], int]) -> int:
    """A command's exit code: `main`'s own, 2 and the message of a `UserError`, or `UNFIT` and that
    of an `Unfit`.

    What the operating system refuses (a full disk, a folder that may not be written) is the user's
    to mend too, and so is a device that is out of memory.
    """
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    except OSError as error:
        if error.errno is None:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = ": make room, then run the same command again" if full else ""
        print(f"error: {error.filename or 'disk'}: {error.strerror}{advice}", file=sys.stderr)
    except RuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):  # jax's word for an out of memory
            raise
        reason = str(error).partition("\n")[0]
        print(f"error: {reason}; give a smaller batch, crop or network", file=sys.stderr)
    return 2
