"""The file of a verdict: what a check writes, and how it is read with its remarks."""

from pathlib import Path
from typing import Any

from normbench.errors import RequestError, Unreadable
from normbench.system import untrusted
from normbench.verdicts.remarks import with_remarks
from normbench.verdicts.verdict import Verdict

_PARTS = {"__all__": {"withdrawn"}}
_DESIGN = {"withdrawn": True, "contrasts": _PARTS, "crossovers": _PARTS}
_REMARKED: Any = {
    "findings": True,
    "mechanisms": {"__all__": _DESIGN},
    "outcomes": {"__all__": _DESIGN},
}


def read_verdict(path: Path) -> Verdict | None:
    """The verdict in a file, with the remarks beside it; None if there is none.

    Raises RequestError if it, or its remarks, are damaged or of another version.
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


def as_recorded(verdict: Verdict) -> str:
    """The JSON of what the check found, without the remarks made later."""
    return verdict.model_dump_json(indent=2, exclude=_REMARKED) + "\n"
