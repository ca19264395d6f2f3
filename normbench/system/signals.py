"""Ctrl-C, SIGTERM and SIGHUP: what they mean to a process, for a while.

SIGHUP is what a terminal sends that is closed. Where it is ignored (`nohup`), it stays
ignored.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from normbench.system.interrupts import end_at_once, interrupt

Handler = Callable[[int, FrameType | None], object]


def not_ignored(*names: str) -> tuple[signal.Signals, ...]:
    """The signals of these names, such as "SIGHUP", that are here and not ignored."""
    here = (getattr(signal, name) for name in names if hasattr(signal, name))
    return tuple(each for each in here if signal.getsignal(each) != signal.SIG_IGN)


def of_the_terminal() -> tuple[signal.Signals, ...]:
    """Those that a terminal sends to all of its processes."""
    if sys.platform == "win32":
        return (signal.SIGINT,)
    return signal.SIGINT, signal.SIGHUP


@contextmanager
def handled(numbers: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """`handler` is that of the signals `numbers` meanwhile."""
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, former in zip(numbers, before, strict=True):
            signal.signal(number, former)


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt meanwhile, where it ended the process at once."""
    if signal.getsignal(signal.SIGINT) is not end_at_once:
        yield
        return
    with handled((signal.SIGINT,), interrupt):
        yield


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Unlike SIG_IGN, of which Python complains where the signal has come already."""


@contextmanager
def all_interrupt() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP are a KeyboardInterrupt meanwhile.

    The last two once: while what is done is saved, only Ctrl-C ends that. A terminal
    that is closed, and its shell, may each send a signal.
    """
    numbers = not_ignored("SIGTERM", "SIGHUP")

    def press(signum: int, frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, _ignore)
        interrupt(signum, frame)

    with handled((*numbers, *not_ignored("SIGINT")), press):
        yield
