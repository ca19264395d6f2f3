"""Read the file of a verdict with its remarks, and write it without them."""

from pathlib import Path
from typing import Any

from normbench.errors import RequestError, Unreadable
from normbench.system import untrusted
from normbench.verdicts.remarks import with_remarks
from normbench.verdicts.verdict import Verdict

_WITHDRAWN_PARTS = {"__all__": {"withdrawn"}}
_DESIGN_FIELDS = {
    "withdrawn": True,
    "contrasts": _WITHDRAWN_PARTS,
    "crossovers": _WITHDRAWN_PARTS,
}
_REMARK_FIELDS: Any = {
    "findings": True,
    "mechanisms": {"__all__": _DESIGN_FIELDS},
    "outcomes": {"__all__": _DESIGN_FIELDS},
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


def as_recorded(verdict: Verdict) -> str:
    """Return the JSON of a verdict as its check wrote it, without later remarks."""
    return verdict.model_dump_json(indent=2, exclude=_REMARK_FIELDS) + "\n"
