"""Standard output and standard error whose writes never raise.

The first thing that the program does, and each of its workers, is `install`. From then
on a write of progress may fail (a full disk, a reader or a terminal that is gone) and
nothing that is running learns of it. What standard output loses is remembered, for the
program's exit code. Text is written so that it cannot command a terminal.
"""

import codecs
import errno
import io
import os
import re
import select
import sys
import time
from contextlib import suppress
from typing import TextIO

PATIENCE = 1.0
"""Seconds that progress waits for a reader that does not read; then it is left out."""
PIECE = 4096
"""Bytes that a pipe takes whole where it takes any."""
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
r"""Control characters but for \t and \n, and those that turn the direction of text."""


def clean(text: str) -> str:
    r"""`text` with every character of COMMANDS as \uXXXX, which is JSON in JSON too."""
    return COMMANDS.sub(lambda found: _escaped(found[0]), text)


def _escaped(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _escaped(error.object[error.start : error.end]), error.end


ESCAPE = "normbench.escape"
codecs.register_error(ESCAPE, _escape_unencodable)


class Output:
    r"""A descriptor that text goes to; what it cannot encode goes as \uXXXX.

    `lost` is the first error. After it an output that `waits` for its reader, as that
    of results does, takes nothing more: what came later would follow a hole.
    """

    def __init__(self, stream: TextIO | None, descriptor: int, *, waits: bool) -> None:
        binary = getattr(stream, "buffer", None)
        self._raw = (
            (None if waits else _opened_anew(descriptor))
            or getattr(binary, "raw", None)
            or io.FileIO(descriptor, "w", closefd=False)
        )
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"
        self._encoder = codecs.getincrementalencoder(self.encoding)(ESCAPE)
        self.descriptor = descriptor
        self.lost: OSError | None = None
        self._waits = waits
        self._stalled = False

    def write(self, text: str) -> None:
        """Write all of it, or as much as can be."""
        rest = memoryview(self._encoder.encode(text))
        until = time.monotonic() + (0 if self._stalled else PATIENCE)
        try:
            while rest and not (self._waits and self.lost) and self._takes_more():
                taken = self._raw.write(rest[:PIECE]) or 0
                rest = rest[taken:]
                if taken:
                    self._stalled = False
                elif self._waits or time.monotonic() < until:
                    time.sleep(0.01)  # room, but for less than a line's end
                else:
                    self._stalled = True
                    break
        except OSError as error:
            self.lost = self.lost or error

    def _takes_more(self) -> bool:
        """Whether there is room for a write; results wait for that however long."""
        if not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        patience = 0 if self._stalled else 1000 * PATIENCE
        takes = bool(poll.poll(None if self._waits else patience))
        self._stalled = self._stalled or not takes
        return takes


def _opened_anew(descriptor: int) -> io.FileIO | None:
    """The terminal of a descriptor, for writes that do not block; None if it is none.

    One that has any room counts as ready, and a write of more than that would block;
    O_NONBLOCK on the descriptor itself would be set for other processes too.
    """
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        return io.FileIO(os.open(os.ttyname(descriptor), flags), "w", closefd=False)
    except (AttributeError, OSError):  # the former on Windows
        return None


class Stream(io.TextIOBase):
    """Standard output or error. What is written is made clean first, or stays `styled`.

    A console commands the terminal, and so has a styled one.
    """

    def __init__(self, output: Output, *, styled: bool = False) -> None:
        self._output, self._is_styled = output, styled

    def styled(self) -> "Stream":
        """The same output, for a console."""
        return Stream(self._output, styled=True)

    @property
    def lost(self) -> OSError | None:
        """What the first write that failed raised."""
        return self._output.lost

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._output.encoding

    def fileno(self) -> int:
        return self._output.descriptor

    def isatty(self) -> bool:
        return os.isatty(self._output.descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._output.write(text if self._is_styled else clean(text))
        return len(text)

    def close(self) -> None:
        """Nothing: the descriptor is the process's."""


def install() -> None:
    """Put streams whose writes never raise in the place of sys.stdout and sys.stderr.

    One that is no file of the operating system's, as in a test, stays what it is.
    """
    _open_what_is_closed()
    for name, descriptor, waits in (("stdout", 1, True), ("stderr", 2, False)):
        stream = getattr(sys, name)
        if isinstance(stream, Stream):
            continue
        if stream is not None:
            try:
                stream.flush()
                descriptor = stream.fileno()
            except (AttributeError, OSError, ValueError):
                continue
        setattr(sys, name, Stream(Output(stream, descriptor, waits=waits)))


def _open_what_is_closed() -> None:
    """Else the next file opened would be standard output or error, and get their text.

    A write to what stands for standard output fails: what was asked for is not seen.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, mode), True)


def lost_output() -> OSError | None:
    """Why something of standard output could not be written; None where all was."""
    return sys.stdout.lost if isinstance(sys.stdout, Stream) else None


def say_lost_output() -> bool:
    """Whether output was lost: a line on standard error, but for `| head`."""
    lost = lost_output()
    if lost is not None and lost.errno != errno.EPIPE:
        reason = lost.strerror or lost
        sys.stderr.write(f"error: standard output cannot be written: {reason}\n")
    return lost is not None


def write_error(text: str) -> None:
    """Write to standard error from a signal's handler, whatever stands in its place."""
    with suppress(AttributeError, OSError, ValueError):
        stream = sys.stderr
        getattr(stream, "rich_proxied_file", stream).write(text)
