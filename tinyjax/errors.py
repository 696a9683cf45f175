"""Errors that commands report as one line, and their exit codes."""

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

# Exit codes of sysexits.h.
EX_UNAVAILABLE = 69  # another machine, or another attempt, may succeed
STOPPED = 75  # EX_TEMPFAIL: stopped and saved; the same command resumes


class UserError(Exception):
    """Invalid input: a file, a field or a value.

    The message names the file, the field, the value and a valid value; a command prints it as one
    line, without a traceback, and ends with exit code 2. Several arguments are several mistakes,
    printed as a line each.
    """

    def __str__(self) -> str:
        if len(self.args) < 2:
            return super().__str__()
        return "\n  ".join([f"{len(self.args)} mistakes:", *map(str, self.args)])


class MachineError(Exception):
    """The machine, or the other processes, are not as required; exit code `EX_UNAVAILABLE`."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the most similar known name, and all of them."""
    known = [str(k) for k in known]
    similar = get_close_matches(str(name), known, n=1, cutoff=0.5)
    advice = f"did you mean {similar[0]!r}? " if similar else ""
    return f"{advice}known: {', '.join(known) or 'none'}"


def run_all(*checks: Callable[[], Any]) -> list[Any]:
    """Run all checks and return their results. Raises one UserError for the mistakes of all."""
    results: list[Any] = []
    mistakes: list[str] = []
    for check in checks:
        try:
            results.append(check())
        except UserError as error:
            mistakes += error.args
    if mistakes:
        raise UserError(*dict.fromkeys(mistakes))
    return results


def shorten(names: Iterable[str]) -> str:
    """The first three names, and the number of further names."""
    first, more = (names := [*names])[:3], len(names) - 3
    return (", ".join(first) or "none") + (f" and {more} more" if more > 0 else "")


def run_command(main: Callable[[], int]) -> int:
    """Run the `main` of this process's command and return its exit code, see `exit_code`.

    Names of files are UTF-8 in data sets and in the output. Python would read and write them in the
    locale's encoding, which cannot be changed later; in another one the process starts again.
    """
    is_utf8 = sys.getfilesystemencoding().lower() == "utf-8" or os.environ.get("PYTHONUTF8") == "1"
    if not is_utf8 and sys.executable:
        os.environ["PYTHONUTF8"] = "1"  # also for the processes that this one starts
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return exit_code(main)


def exit_code(main: Callable[[], int]) -> int:
    """Run `main` and return the exit code of the command.

    It is the code that `main` returns; 2 after a `UserError`, an operating system error (a full
    disk, a folder without write permission) or a device that is out of memory; `EX_UNAVAILABLE`
    after a `MachineError`. The message of the error is printed to stderr.
    """
    replace_unencodable()
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
        disk_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = ": free some space, then run the same command again" if disk_full else ""
        print(f"error: {error.filename or 'disk'}: {error.strerror}{advice}", file=sys.stderr)
    except RuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):  # how jax reports out of memory
            raise
        reason = str(error).partition("\n")[0]
        print(f"error: {reason}; use a smaller batch, crop or network", file=sys.stderr)
    return 2


def replace_unencodable() -> None:
    """Let the console show "?" for characters that it cannot encode; it would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's streams have no encoding
            stream.reconfigure(errors="replace")
