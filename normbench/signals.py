"""Ctrl-C, SIGTERM and SIGHUP: how a process that is asked to end does so.

SIGHUP is what a terminal sends that is closed. Where it is ignored (`nohup`), it stays
ignored.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from normbench.streams import write_error

Handler = Callable[[int, FrameType | None], object]

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
AGAIN = "interrupted; the same command takes it up again"
IMPORTING = "<frozen importlib._bootstrap>"
"""The file of the frames in which Python imports a module."""


def not_ignored(*names: str) -> tuple[signal.Signals, ...]:
    """The signals of these names, such as "SIGHUP", that are here and not ignored."""
    here = (getattr(signal, name) for name in names if hasattr(signal, name))
    return tuple(each for each in here if signal.getsignal(each) != signal.SIG_IGN)


def of_the_terminal() -> tuple[signal.Signals, ...]:
    """Those that a terminal sends to all of its processes."""
    if sys.platform == "win32":
        return (signal.SIGINT,)
    return signal.SIGINT, signal.SIGHUP


def end_at_once(signum: int, frame: FrameType | None) -> NoReturn:
    """A handler for a process that has nothing to save."""
    write_error(f"{AGAIN}\n")
    os._exit(INTERRUPTED)


def interrupt(signum: int, frame: FrameType | None) -> None:
    """A handler that raises KeyboardInterrupt; while a module is imported, it ends.

    Code that runs at an import may catch what is raised in it, and go on.
    """
    importing = frame
    while importing is not None:
        if importing.f_code.co_filename == IMPORTING:
            end_at_once(signum, frame)
        importing = importing.f_back
    raise KeyboardInterrupt


def heed_ctrl_c_at_once() -> None:
    """Ctrl-C ends this process, from its first moment, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt meanwhile, not the end (`heed_ctrl_c_at_once`)."""
    if signal.getsignal(signal.SIGINT) is not end_at_once:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, end_at_once)


@contextmanager
def all_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP are what Ctrl-C is, meanwhile.

    Once: while what is done is saved, only one more Ctrl-C ends it. A terminal that is
    closed, and its shell, may each send a signal.
    """
    numbers = not_ignored("SIGTERM", "SIGHUP")

    def press(signum: int, frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        interrupt(signum, frame)

    with handled((*numbers, *not_ignored("SIGINT")), press):
        yield


@contextmanager
def handled(numbers: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """`handler` is that of the signals `numbers` meanwhile."""
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, former in zip(numbers, before, strict=True):
            signal.signal(number, former)
