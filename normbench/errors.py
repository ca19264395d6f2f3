"""The exceptions of normbench.

NormbenchError          the command failed: exit code 1
├── Stopped             the run was interrupted and can be resumed
├── Unreadable          a file exists but cannot be read: a report leaves it out
│   └── Damaged         the file has a wrong content (also a RequestError)
└── RequestError        the request was wrong: exit code 2, nothing was written
    ├── Busy            another process executes this run
    └── Incompatible    the norm cannot work in the network: a sweep skips the run

If a run diverges or raises an exception, its record has the status "diverged" or
"failed", and the program continues.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType


class NormbenchError(Exception):
    """The base class of all errors that normbench raises on purpose."""


class Stopped(NormbenchError):
    """The run was interrupted; the message says how to resume it."""


class RequestError(NormbenchError):
    """The request was wrong. The message names the key, the value and the remedy."""


class Unreadable(NormbenchError):
    """The file at `path` exists but cannot be read. `why` is the reason."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path} cannot be read: {self.why}"


class Damaged(Unreadable, RequestError):
    """The content of the file at `path` is not what normbench writes."""

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.why}"


class Busy(RequestError):
    """Another process executes this run."""


class Incompatible(RequestError):
    """The norm cannot work in the network. The message is the reason."""


def shortened(value: object) -> str:
    """Return the repr of `value`, without its middle if it has over 200 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # such as an integer of over 4,300 digits
        return f"({type(value).__name__}, too large to print)"
    return text if len(text) <= 200 else f"{text[:100]} .. {text[-20:]}"


MAX_NAMES = 20
"""An error lists at most this many names."""


def did_you_mean(
    word: str,
    known: Iterable[str],
    also_called: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a clause with the names in `known` that are similar to `word`.

    `also_called` maps other names to names in `known`. Similar names are left out if
    `word` is such an other name, or another spelling of a name. If no name is similar,
    the clause contains the names in `known`, but of a long list only the first
    MAX_NAMES.
    """
    names = sorted(known)
    called = {_letters(other): name for other, name in also_called.items()}
    if called.get(_letters(word)) in names:
        return f"did you mean {called[_letters(word)]!r}?"
    spellings = [name for name in names if _is_spelling(word, name)]
    likely = (spellings or difflib.get_close_matches(word, names))[:3]
    if likely:
        return f"did you mean {' or '.join(repr(name) for name in likely)}?"
    if not names:
        return "there are none"
    others = f" and {len(names) - MAX_NAMES} others" if len(names) > MAX_NAMES else ""
    return f"known: {', '.join(names[:MAX_NAMES])}{others}"


def similar_key(key: str, known: Iterable[str]) -> str:
    """Return a clause with at most three of the dotted keys `known`, similar to `key`.

    Keys with the same last part come first: "task.depth" for "depth", and
    "norm.num_groups" for "groups". If no key is similar, the clause says so.
    """
    word = key.lower()
    last_parts = {name: re.split(r"[./]", name)[-1] for name in sorted(known)}
    likely = [name for name, last in last_parts.items() if last == word]
    if not likely:
        end = f"_{word}"
        likely = [name for name, last in last_parts.items() if last.endswith(end)]
    likely = likely or difflib.get_close_matches(word, last_parts)
    if not likely:
        names = {last: name for name, last in last_parts.items()}
        likely = [names[last] for last in difflib.get_close_matches(word, names)]
    if not likely:
        return "no key is similar"
    return f"did you mean {' or '.join(repr(name) for name in likely[:3])}?"


def _is_spelling(word: str, name: str) -> bool:
    """Return whether `word` is another spelling of `name`.

    Examples are "BatchNorm2d" for "batch" and "bgn" for "batch_group".
    """
    initials = "".join(part[:1] for part in name.split("_")) + "n"
    letters = _letters(word)
    # A name of three letters, such as "ibn", already consists of initials.
    if letters == initials and len(name) > 3:
        return True
    return _core(word) != "" and _core(word) == _core(name)


def _letters(word: str) -> str:
    """Return `word` in lower case without its module and punctuation."""
    return re.sub(r"[\W_]", "", word.rpartition(".")[2]).lower()


def _core(word: str) -> str:
    """Return `word` in lower case without its module, "norm", "2d" and punctuation."""
    letters = _letters(word)
    return re.sub(r"norm(alization|alisation)?|[123]d$", "", letters)
