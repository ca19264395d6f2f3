"""Temporary handlers of Ctrl-C, SIGTERM and SIGHUP.

A terminal sends SIGHUP when it is closed. If the process already ignores a signal, as
after `nohup`, these handlers do not change that.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from normbench.system.interrupts import exit_at_once, interrupt

Handler = Callable[[int, FrameType | None], object]


def not_ignored(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals `names`, such as "SIGHUP", that this process does not ignore.

    Names that the operating system does not have are left out.
    """
    signals = (getattr(signal, name) for name in names if hasattr(signal, name))
    return tuple(s for s in signals if signal.getsignal(s) != signal.SIG_IGN)


def terminal_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that a terminal sends to all of its processes."""
    if sys.platform == "win32":
        return (signal.SIGINT,)
    return signal.SIGINT, signal.SIGHUP


@contextmanager
def handled(numbers: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handle the signals `numbers` by `handler` inside the `with` block."""
    previous_handlers = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, previous in zip(numbers, previous_handlers, strict=True):
            signal.signal(number, previous)


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt inside the block if it would end the process.

    Any handler except `exit_at_once` stays.
    """
    if signal.getsignal(signal.SIGINT) is not exit_at_once:
        yield
        return
    with handled((signal.SIGINT,), interrupt):
        yield


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing. With SIG_IGN instead, Python would warn about a pending signal."""


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt inside the block.

    After the first of them, the process ignores SIGTERM and SIGHUP: a closed terminal
    and its shell may both send a signal. Only a second Ctrl-C can then interrupt the
    saving of results.
    """
    numbers = not_ignored("SIGTERM", "SIGHUP")

    def interrupt_once(signum: int, frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, _ignore)
        interrupt(signum, frame)

    with handled((*numbers, *not_ignored("SIGINT")), interrupt_once):
        yield
