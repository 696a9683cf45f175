"""What is refused before a run starts because it would not fit."""

import subprocess
import sys

import numpy as np
import pytest

from tinyjax import errors, startup


def test_a_set_that_does_not_fit_says_what_it_needs(monkeypatch):
    images = np.zeros((512, 64, 64, 1), np.uint8)  # 2 MiB
    monkeypatch.setattr(startup, "memory", lambda: 2**21)
    startup.refuse_large_set(images)
    monkeypatch.setattr(startup, "memory", lambda: 2**20)
    message = r"data\.train: 512 images need 0\.00 GiB on the device, .*data\.common\.size"
    with pytest.raises(errors.UserError, match=message):
        startup.refuse_large_set(images)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's malloc")
def test_memory_that_is_freed_stays_with_the_process():
    """A large block taken again, by whatever thread, is not taken from the kernel again, page by
    page.
    """
    code = (
        "import resource, sys, threading\n"
        "from tinyjax import startup\n"
        "if sys.argv[1] == 'kept': startup.keep_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def work():\n"
        "    for _ in range(2): b'x' * 2**27\n"
        "    before = faults()\n"
        "    for _ in range(4): b'x' * 2**27\n"
        "    print(faults() - before)\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True,
                           check=True).stdout)
        for how in ("kept", "given back")
    )  # fmt: skip
    assert kept < given_back / 4
