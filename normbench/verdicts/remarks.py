"""What was found out about a verdict after its check: `remarks.yaml` beside it.

A verdict stays as its check wrote it. Remarks withdraw decisions that no longer stand
and add findings; everything that shows the verdict shows them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normbench.errors import RequestError, Unreadable, did_you_mean
from normbench.registry import explain
from normbench.system.untrusted import yaml_value

if TYPE_CHECKING:
    from normbench.verdicts.verdict import DesignVerdict, Verdict

REMARKS = "remarks.yaml"

Part = Literal["statement", "theorem", "mechanism", "outcome"]
"""What of a claim a finding is about: its sentence, or one of its three parts."""

Text = Annotated[str, Field(min_length=1)]


class _Remarked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Withdrawal(_Remarked):
    """A design whose decision no longer stands, with all its contrasts and crossovers.

    Where `contrasts` are named, only those are withdrawn; crossovers can be named too.
    """

    design: str
    contrasts: list[str] = []
    reason: Text


class Remarks(_Remarked):
    """The remarks on the verdict of one registration, whose hash is `registration`.

    A verdict of another registration is a new one: nothing of this applies to it.
    """

    registration: str
    withdrawn: list[Withdrawal] = []
    findings: dict[Part, Text] = {}


def read_remarks(path: Path) -> Remarks | None:
    """The remarks in a file; None where there is none.

    Raises RequestError where they cannot be read.
    """
    try:
        return Remarks.model_validate(yaml_value(path))
    except FileNotFoundError:
        return None
    except Unreadable as error:
        raise RequestError(f"{path} cannot be read: {error.why}") from None
    except ValidationError as error:
        raise RequestError(f"{path}:\n{explain(error)}") from None


def with_remarks(verdict: "Verdict", folder: Path) -> "Verdict":
    """`verdict` with the remarks in `folder`, where they are of its registration.

    They are of full checks. Raises RequestError where they cannot be read, or name
    something that the verdict does not have.
    """
    path = folder / REMARKS
    remarks = read_remarks(path) if verdict.budget == "full" else None
    if remarks is None or remarks.registration != verdict.registration:
        return verdict
    try:
        return _remarked(verdict, remarks)
    except ValueError as error:
        raise RequestError(f"{path}: withdrawn: {error}") from None


def _remarked(verdict: "Verdict", remarks: Remarks) -> "Verdict":
    designs = {design.name: design for design in verdict.designs}
    for withdrawal in remarks.withdrawn:
        name = withdrawal.design
        if name not in designs:
            known = did_you_mean(name, designs)
            raise ValueError(f"there is no design {name!r}; {known}")
        designs[name] = _withdrawn(designs[name], withdrawal)
    changes: dict[str, Any] = {"findings": remarks.findings}
    for part in ("mechanisms", "outcomes"):
        changes[part] = [designs[design.name] for design in getattr(verdict, part)]
    return verdict.model_copy(update=changes)


def _withdrawn(design: "DesignVerdict", withdrawal: Withdrawal) -> "DesignVerdict":
    named, reason = withdrawal.contrasts, {"withdrawn": withdrawal.reason}
    known = [contrast.name for contrast in design.contrasts]
    known += [crossing.name for crossing in design.crossovers]
    for name in named:
        if name not in known:
            message = f"{design.name} has no contrast {name!r}"
            raise ValueError(f"{message}; {did_you_mean(name, known)}")
    changes: dict[str, Any] = {} if named else dict(reason)
    for kind in ("contrasts", "crossovers"):
        changes[kind] = [
            each.model_copy(update=reason) if not named or each.name in named else each
            for each in getattr(design, kind)
        ]
    return design.model_copy(update=changes)
