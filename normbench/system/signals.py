"""Temporary handlers of Ctrl-C, SIGTERM and SIGHUP.

A terminal sends SIGHUP when it is closed. A process that ignores it (`nohup`) goes on
ignoring it.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from normbench.system.interrupts import end_at_once, interrupt

Handler = Callable[[int, FrameType | None], object]


def not_ignored(*names: str) -> tuple[signal.Signals, ...]:
    """The signals of these names, such as "SIGHUP", that exist and are not ignored."""
    signals = (getattr(signal, name) for name in names if hasattr(signal, name))
    return tuple(s for s in signals if signal.getsignal(s) != signal.SIG_IGN)


def of_the_terminal() -> tuple[signal.Signals, ...]:
    """The signals that a terminal sends to all of its processes."""
    if sys.platform == "win32":
        return (signal.SIGINT,)
    return signal.SIGINT, signal.SIGHUP


@contextmanager
def handled(numbers: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handle the signals `numbers` by `handler` inside the `with` block."""
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, former in zip(numbers, before, strict=True):
            signal.signal(number, former)


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Inside the block, Ctrl-C raises KeyboardInterrupt where it ended the process."""
    if signal.getsignal(signal.SIGINT) is not end_at_once:
        yield
        return
    with handled((signal.SIGINT,), interrupt):
        yield


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing; with SIG_IGN, Python would warn about a signal that is pending."""


@contextmanager
def all_interrupt() -> Iterator[None]:
    """Inside the block, Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt.

    SIGTERM and SIGHUP do so once: a closed terminal and its shell may each send one,
    and only Ctrl-C may stop the saving that follows.
    """
    numbers = not_ignored("SIGTERM", "SIGHUP")

    def press(signum: int, frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, _ignore)
        interrupt(signum, frame)

    with handled((*numbers, *not_ignored("SIGINT")), press):
        yield
