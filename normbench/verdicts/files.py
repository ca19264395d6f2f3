"""Read the file of a verdict with its remarks, and write it without them."""

from pathlib import Path
from typing import Any

from normbench.errors import RequestError, Unreadable
from normbench.system import untrusted
from normbench.verdicts.remarks import with_remarks
from normbench.verdicts.verdict import Verdict

_REMARK_FIELDS: Any = {
    "summary": True,
    "parts": {"__all__": {"finding", "withdrawn"}},
}
_NOT_JUDGED: Any = {
    **dict.fromkeys(("started", "command", "environment", "caveats"), True),
    "registered": True,
    "theorems": {"__all__": {"deviation", "control", "detail"}},
}


def read_verdict(path: Path) -> Verdict | None:
    """Return the verdict in a file with the remarks beside it; None without a file.

    Raises RequestError if the verdict or the remarks are damaged or of another version.
    """
    try:
        data = untrusted.content(path, untrusted.MAX_VERDICT_BYTES, follow=True)
        verdict = untrusted.parsed(Verdict, data, path)
    except FileNotFoundError:
        return None
    except (Unreadable, NotADirectoryError) as error:
        why = error.why if isinstance(error, Unreadable) else error.strerror
        raise RequestError(f"{path} is not a verdict ({why}); remove it") from None
    return with_remarks(verdict, path.parent)


def as_judged(verdict: Verdict) -> dict[str, Any]:
    """Return what a verdict says of its registration and its runs, as JSON types.

    Left out are remarks, and what may differ between two judgements of the same runs:
    time, command, environment, caveats (which compare the runs with the code that
    judges), and the rounding errors that the theorems measure.
    """
    return verdict.model_dump(mode="json", exclude=_REMARK_FIELDS | _NOT_JUDGED)


def as_recorded(verdict: Verdict) -> str:
    """Return the JSON of a verdict as its check wrote it, without later remarks."""
    return verdict.model_dump_json(indent=2, exclude=_REMARK_FIELDS) + "\n"
