"""Handlers of Ctrl-C for the start of the program: they import next to nothing."""

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` takes time, too
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
AGAIN = "interrupted; the same command continues it"
IMPORTING = "<frozen importlib._bootstrap>"
"""The file name in the frames in which Python imports a module."""


def heed_ctrl_c_at_once() -> None:
    """Let Ctrl-C end this process, which has nothing to save yet, unless ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def end_at_once(signum: int, frame: "FrameType | None") -> "NoReturn":
    """A handler that ends the process at any point."""
    try:
        os.write(2, f"{AGAIN}\n".encode())
    except OSError:
        pass  # nobody can see it
    os._exit(INTERRUPTED)


def interrupt(signum: int, frame: "FrameType | None") -> None:
    """A handler that raises KeyboardInterrupt, or ends the process during an import.

    Code that runs during an import may catch the exception and go on.
    """
    caller = frame
    while caller is not None:
        if caller.f_code.co_filename == IMPORTING:
            end_at_once(signum, frame)
        caller = caller.f_back
    raise KeyboardInterrupt
