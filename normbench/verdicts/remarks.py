"""Read later remarks on a verdict, from `remarks.yaml` beside it.

The file of a verdict stays as its check wrote it. Remarks withdraw decisions that are
no longer valid and add findings. Every view of the verdict shows them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normbench.errors import RequestError, Unreadable, did_you_mean
from normbench.registry import explain
from normbench.system.untrusted import yaml_value
from normbench.verdicts.verdict import DesignVerdict, Part, Verdict

REMARKS = "remarks.yaml"

Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Withdrawal(_Strict):
    """A design whose decision is no longer valid, with its contrasts and crossovers.

    If `contrasts` has names, only these contrasts or crossovers are withdrawn.
    """

    design: str
    contrasts: list[str] = []
    reason: Text


class Remarks(_Strict):
    """Remarks on the verdict of the registration with the hash `registration`.

    They do not apply to verdicts of other registrations.
    """

    registration: str
    withdrawn: list[Withdrawal] = []
    findings: dict[Part, Text] = {}


def read_remarks(path: Path) -> Remarks | None:
    """Return the remarks in a file; None without a file.

    Raises RequestError if they cannot be read.
    """
    try:
        return Remarks.model_validate(yaml_value(path))
    except FileNotFoundError:
        return None
    except Unreadable as error:
        raise RequestError(f"{path} cannot be read: {error.why}") from None
    except ValidationError as error:
        raise RequestError(f"{path}:\n{explain(error)}") from None


def with_remarks(verdict: Verdict, folder: Path) -> Verdict:
    """Return `verdict` with the remarks in `folder`.

    Remarks apply only to a full check of the registration that they name; otherwise
    they are ignored. Raises RequestError if they cannot be read, or if they name a
    design or contrast that the verdict does not have.
    """
    path = folder / REMARKS
    remarks = read_remarks(path) if verdict.budget == "full" else None
    if remarks is None or remarks.registration != verdict.registration:
        return verdict
    try:
        designs = _withdrawn(verdict.designs, remarks.withdrawn)
    except ValueError as error:
        raise RequestError(f"{path}: withdrawn: {error}") from None
    return verdict.model_copy(
        update={
            "findings": remarks.findings,
            "mechanisms": [designs[design.name] for design in verdict.mechanisms],
            "outcomes": [designs[design.name] for design in verdict.outcomes],
        }
    )


def _withdrawn(
    designs: Sequence[DesignVerdict], withdrawals: Sequence[Withdrawal]
) -> dict[str, DesignVerdict]:
    """Return the designs by name after the withdrawals; ValueError for a wrong name."""
    changed = {design.name: design for design in designs}
    for withdrawal in withdrawals:
        design = changed.get(withdrawal.design)
        if design is None:
            known = did_you_mean(withdrawal.design, changed)
            raise ValueError(f"there is no design {withdrawal.design!r}; {known}")
        parts = [c.name for c in design.contrasts]
        parts += [crossover.name for crossover in design.crossovers]
        for name in withdrawal.contrasts:
            if name not in parts:
                message = f"{design.name} has no contrast {name!r}"
                raise ValueError(f"{message}; {did_you_mean(name, parts)}")
        names = withdrawal.contrasts or parts
        mark = {"withdrawn": withdrawal.reason}
        changes = {
            kind: [
                part.model_copy(update=mark) if part.name in names else part
                for part in getattr(design, kind)
            ]
            for kind in ("contrasts", "crossovers")
        }
        # The design itself is withdrawn if the remark names none of its parts.
        mark_of_design = {} if withdrawal.contrasts else mark
        changed[design.name] = design.model_copy(update=changes | mark_of_design)
    return changed
