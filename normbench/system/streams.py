"""Standard output and standard error whose writes never raise.

The program and each of its workers call `install` first. From then on a write of
progress may fail (a full disk, a closed pipe or terminal) without ending what runs.
The first error of standard output is kept for the exit code. Text is cleaned, so that
it cannot send commands to a terminal.
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
"""Seconds that progress waits for a reader that is slow; then it is left out."""
PIECE = 4096
"""Bytes that a pipe takes as a whole, if it takes any."""
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
r"""Control characters except \t and \n, and those that change the text direction."""


def clean(text: str) -> str:
    r"""`text` with every character of COMMANDS as \uXXXX, which JSON reads back."""
    return COMMANDS.sub(lambda match: _escaped(match[0]), text)


def _escaped(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _escaped(error.object[error.start : error.end]), error.end


ESCAPE = "normbench.escape"
codecs.register_error(ESCAPE, _escape_unencodable)


class Output:
    r"""Writes text to a descriptor; characters that it cannot encode become \uXXXX.

    `lost` is the first error of a write. If `waits`, as for results, a write waits for
    its reader however long, and after an error nothing more is written: it would follow
    a gap.
    """

    def __init__(self, stream: TextIO | None, descriptor: int, *, waits: bool) -> None:
        binary = getattr(stream, "buffer", None)
        self._raw = (
            (None if waits else _reopened(descriptor))
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
        """Write all of `text`, or as much as the reader takes in time."""
        rest = memoryview(self._encoder.encode(text))
        deadline = time.monotonic() + (0 if self._stalled else PATIENCE)
        try:
            while rest and not (self._waits and self.lost) and self._is_ready():
                written = self._raw.write(rest[:PIECE]) or 0
                rest = rest[written:]
                if written:
                    self._stalled = False
                elif self._waits or time.monotonic() < deadline:
                    time.sleep(0.01)  # there is room, but too little for the next piece
                else:
                    self._stalled = True
                    break
        except OSError as error:
            self.lost = self.lost or error

    def _is_ready(self) -> bool:
        """Wait until there is room for a write; False if that takes too long."""
        if not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        milliseconds = 0 if self._stalled else 1000 * PATIENCE
        ready = bool(poll.poll(None if self._waits else milliseconds))
        self._stalled = self._stalled or not ready
        return ready


def _reopened(descriptor: int) -> io.FileIO | None:
    """The terminal of a descriptor, opened for writes that do not block, if it is one.

    A terminal with any room counts as ready, and a longer write would block. O_NONBLOCK
    on the descriptor itself would be set for other processes too.
    """
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        return io.FileIO(os.open(os.ttyname(descriptor), flags), "w", closefd=False)
    except (AttributeError, OSError):  # the former on Windows
        return None


class Stream(io.TextIOBase):
    """Standard output or error; cleans what is written unless it is `styled`."""

    def __init__(self, output: Output, *, styled: bool = False) -> None:
        self._output, self._is_styled = output, styled

    def styled(self) -> "Stream":
        """The same output for a console, which sends commands to the terminal."""
        return Stream(self._output, styled=True)

    @property
    def lost(self) -> OSError | None:
        """The error of the first write that failed."""
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
        """Do nothing: the descriptor belongs to the process."""


def install() -> None:
    """Replace sys.stdout and sys.stderr by streams whose writes never raise.

    A stream without a descriptor, as in a test, stays.
    """
    _open_closed_descriptors()
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


def _open_closed_descriptors() -> None:
    """Open the null device as every standard descriptor that is closed.

    Otherwise the next opened file would become standard output or error and get its
    text. Standard output is opened for reading: a write fails, as it is not seen.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, mode), True)


def lost_output() -> OSError | None:
    """The error of the first write to standard output that failed, if any did."""
    return sys.stdout.lost if isinstance(sys.stdout, Stream) else None


def say_lost_output() -> bool:
    """Whether standard output lost text; prints the reason, except for `| head`."""
    lost = lost_output()
    if lost is not None and lost.errno != errno.EPIPE:
        reason = lost.strerror or lost
        sys.stderr.write(f"error: standard output cannot be written: {reason}\n")
    return lost is not None


def write_error(text: str) -> None:
    """Write to standard error from a signal handler, even while rich replaces it."""
    with suppress(AttributeError, OSError, ValueError):
        stream = sys.stderr
        getattr(stream, "rich_proxied_file", stream).write(text)
