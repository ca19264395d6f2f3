"""Ctrl-C from the first moment on: imports next to nothing, and comes first."""

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` takes a moment, too
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
AGAIN = "interrupted; the same command takes it up again"
IMPORTING = "<frozen importlib._bootstrap>"
"""The file of the frames in which Python imports a module."""


def heed_ctrl_c_at_once() -> None:
    """Ctrl-C ends this process, which has nothing to save yet, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def end_at_once(signum: int, frame: "FrameType | None") -> "NoReturn":
    """A handler that ends the process, whatever it is doing."""
    try:
        os.write(2, f"{AGAIN}\n".encode())
    except OSError:
        pass  # nobody can see it
    os._exit(INTERRUPTED)


def interrupt(signum: int, frame: "FrameType | None") -> None:
    """A handler that raises KeyboardInterrupt; while a module is imported, it ends.

    Code that runs at an import may catch what is raised in it, and go on.
    """
    importing = frame
    while importing is not None:
        if importing.f_code.co_filename == IMPORTING:
            end_at_once(signum, frame)
        importing = importing.f_back
    raise KeyboardInterrupt
