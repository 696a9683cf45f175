"""C code of the project, compiled by the compiler of the system."""

import ctypes
import shutil
import subprocess
from importlib.resources import files

import pytest


def compile_c(code, folder):
    """The library of C code that includes decode.h. Skips the test if there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "program.c").write_text(code)
    header = files("tinyjax.exporting") / "decode.h"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    command = [compiler, *flags, f"-I{header.parent}", "program.c", "-o", "program.so", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "program.so"))
