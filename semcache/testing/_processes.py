"""Forks of a test that end with it."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable


def run_in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a fork of this process and return its exit code: 0 if it did not raise."""
    return exit_code(start_child(work))


def start_child(work: Callable[[], object]) -> int:
    """Begin ``work`` in a fork of this process and return its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks beside threads: the very point
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int, *, within_s: float = 60) -> int:
    """Wait for a child to end; negative for the signal that ended it."""
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")
