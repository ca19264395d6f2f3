"""Standard output and standard error whose writes never raise an exception.

The program and each of its workers call `install` first. After that, a failed write of
progress (a full disk, a closed pipe or terminal) does not stop a run. `lost_output`
returns the first error of standard output, for the exit code. Control characters in a
text are escaped, so that the text cannot send commands to a terminal.
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

WRITE_TIMEOUT = 1.0
"""Seconds that a write of progress waits for a slow reader before it drops the text."""
PIPE_CHUNK = 4096
"""Bytes that a pipe accepts in one piece or not at all (PIPE_BUF)."""
CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
r"""Control characters except \t and \n, and characters that change the direction."""


def clean(text: str) -> str:
    r"""Return `text` with CONTROL_CHARACTERS as \uXXXX, as in JSON."""
    return CONTROL_CHARACTERS.sub(lambda match: _escaped(match[0]), text)


def _escaped(text: str) -> str:
    r"""Return every UTF-16 unit of `text` as \uXXXX."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _escaped(error.object[error.start : error.end]), error.end


ESCAPE = "normbench.escape"
"""Name of an error handler for codecs: it escapes what the encoding does not have."""
codecs.register_error(ESCAPE, _escape_unencodable)


class Output:
    r"""Writes text to a file descriptor, with characters it cannot encode as \uXXXX.

    `lost` is the first error of a write. If `waits` is True, as for results, a write
    waits for the reader without a limit, and nothing is written after an error. So the
    results have no gap. If `waits` is False, a write drops its text after
    WRITE_TIMEOUT.
    """

    def __init__(self, stream: TextIO | None, descriptor: int, *, waits: bool) -> None:
        binary = getattr(stream, "buffer", None)
        # Writes are not buffered: the terminal, the raw file, or the descriptor itself.
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
        """Write `text`, or the part that the reader accepts before the timeout."""
        rest = memoryview(self._encoder.encode(text))
        # After a write that timed out, the next writes do not wait again.
        deadline = time.monotonic() + (0 if self._stalled else WRITE_TIMEOUT)
        try:
            while rest and not (self._waits and self.lost) and self._is_ready():
                written = self._raw.write(rest[:PIPE_CHUNK]) or 0
                rest = rest[written:]
                if written:
                    self._stalled = False
                elif self._waits or time.monotonic() < deadline:
                    time.sleep(0.01)  # the pipe has too little room for a chunk
                else:
                    self._stalled = True
                    break
        except OSError as error:
            self.lost = self.lost or error

    def _is_ready(self) -> bool:
        """Wait until there is room for a write. Return False after the timeout."""
        if not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        milliseconds = 0 if self._stalled else 1000 * WRITE_TIMEOUT
        is_ready = bool(poll.poll(None if self._waits else milliseconds))
        self._stalled = self._stalled or not is_ready
        return is_ready


def _reopened(descriptor: int) -> io.FileIO | None:
    """Open the terminal of `descriptor` again for writes that do not block.

    Return None if `descriptor` is not a terminal. `poll` reports a terminal as ready if
    the terminal has any room; a write of more text than that would block. Other
    processes share `descriptor`, so O_NONBLOCK must not be set on it.
    """
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        return io.FileIO(os.open(os.ttyname(descriptor), flags), "w", closefd=False)
    except (AttributeError, OSError):  # AttributeError on Windows
        return None


class Stream(io.TextIOBase):
    """Standard output or standard error; escapes control characters (see `clean`)."""

    def __init__(self, output: Output, *, styled: bool = False) -> None:
        self._output, self._is_styled = output, styled

    def styled(self) -> "Stream":
        """Return a stream for rich, which keeps the control characters of styles."""
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

    A stream without a file descriptor, such as a buffer in a test, is not replaced.
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
    """Open the null device for standard descriptors (0, 1, 2) that are closed.

    Otherwise the next file that the process opens would get such a number, and output
    would be written into that file. Standard output is opened for reading only: so a
    write fails, and the program reports that its output is lost.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                # `open` returns the lowest free number, which is `descriptor`.
                os.set_inheritable(os.open(os.devnull, mode), True)


def lost_output() -> OSError | None:
    """Return the error of the first failed write to standard output, or None."""
    return sys.stdout.lost if isinstance(sys.stdout, Stream) else None


def report_lost_output() -> bool:
    """Print the error of standard output, if any. Return whether there was an error.

    If the reader has closed the pipe, as `| head` does, nothing is printed.
    """
    error = lost_output()
    if error is not None and error.errno != errno.EPIPE:
        reason = error.strerror or error
        sys.stderr.write(f"error: standard output cannot be written: {reason}\n")
    return error is not None


def write_error(text: str) -> None:
    """Write to standard error from a signal handler, even while rich replaces it."""
    with suppress(AttributeError, OSError, ValueError):
        stream = sys.stderr
        getattr(stream, "rich_proxied_file", stream).write(text)
