"""Handlers of Ctrl-C for the start of the program.

This module imports almost nothing, so that the handlers are installed early.
"""

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` takes time, too
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
INTERRUPTED_MESSAGE = "interrupted; run the same command again to continue"
IMPORT_FILE_NAME = "<frozen importlib._bootstrap>"
"""The file name of the stack frames in which Python imports a module."""


def install_exit_handler() -> None:
    """Let Ctrl-C end this process at once, unless the process ignores Ctrl-C.

    At the start of the program, no work is lost by that.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, exit_at_once)


def exit_at_once(signum: int, frame: "FrameType | None") -> "NoReturn":
    """End the process without an exception (a signal handler)."""
    try:
        os.write(2, f"{INTERRUPTED_MESSAGE}\n".encode())
    except OSError:
        pass  # standard error is closed
    os._exit(INTERRUPTED)


def interrupt(signum: int, frame: "FrameType | None") -> None:
    """Raise KeyboardInterrupt, or end the process during an import (a signal handler).

    During an import, the imported code might catch the exception and continue.
    """
    caller = frame
    while caller is not None:
        # A caller that is Python's import code: the program is in an import.
        if caller.f_code.co_filename == IMPORT_FILE_NAME:
            exit_at_once(signum, frame)
        caller = caller.f_back
    raise KeyboardInterrupt
