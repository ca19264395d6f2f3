"""The exceptions of normbench.

NormbenchError          the request could not be carried out: exit code 1
├── Stopped             the run was interrupted and can be resumed
├── Unreadable          a file exists but cannot be read: a report leaves it out
│   └── Damaged         (a RequestError too) normbench did not write this content
└── RequestError        the request was wrong: exit code 2, nothing was written
    ├── Busy            another process is doing this run
    └── Incompatible    this norm cannot work in this network: a sweep skips the cell

A run that diverges or raises is not an error of the program: it ends in a record
with that status.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path


class NormbenchError(Exception):
    """Base of every error that normbench raises on purpose."""


class Stopped(NormbenchError):
    """The run was interrupted; the message says how to resume it."""


class RequestError(NormbenchError):
    """The request was wrong; the message names the key, the value and what is right."""


class Unreadable(NormbenchError):
    """The file at `path` exists but cannot be read; `why` is the reason."""

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
    """Another process is doing this run."""


class Incompatible(RequestError):
    """This norm cannot work in this network; the message is the reason."""


def shortened(value: object) -> str:
    """The repr of `value`, without its middle if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits
        return f"({type(value).__name__}, too large to print)"
    return text if len(text) <= 200 else f"{text[:100]} .. {text[-20:]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause naming the close matches to `word`, else all of `known`."""
    names = sorted(known)
    alike = [name for name in names if _is_alike(word, name)]
    close = difflib.get_close_matches(word, names)
    if alike or close:
        likely = list(dict.fromkeys([*alike, *close]))[:3]
        return f"did you mean {' or '.join(repr(name) for name in likely)}?"
    return f"known: {', '.join(names)}" if names else "there are none"


def _is_alike(word: str, name: str) -> bool:
    """Whether `word` is another spelling of `name`, such as BatchNorm2d for batch."""
    initials = "".join(part[:1] for part in name.split("_")) + "n"
    short = re.sub(r"[\W_]", "", word).lower()
    by_initials = short == initials and len(name) > 3
    return by_initials or _core(word) == _core(name) != ""


def _core(word: str) -> str:
    plain = re.sub(r"[\W_]", "", word.rpartition(".")[2]).lower()
    return re.sub(r"norm(alization|alisation)?|[123]d$", "", plain)
