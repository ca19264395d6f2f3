"""Read later remarks on a verdict, from `remarks.yaml` beside it.

The file of a verdict stays as its check wrote it. Remarks write the finding of a part
and a summary of all, or withdraw a headline. Every view of the verdict shows them.

A finding or a summary is a sentence with places for numbers, such as
`{norm_batch-digits | BatchNorm at 2 against 32}`. A place has the name of a design and
the name of a contrast of the design, and stands for the effect of the contrast with its
interval. A third field after another `|` chooses something else: `effect` (without the
interval), `n`, or `p`. With the name of a cell and a metric,
`{norm_batch-digits | batch@2 | test/error}` stands for the mean of the metric.
`{census | NAME}` has the numbers of the census rule NAME.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normbench.errors import RequestError, Unreadable, did_you_mean
from normbench.registry import explain
from normbench.system.untrusted import yaml_value
from normbench.verdicts.verdict import ContrastVerdict, Verdict
from normbench.verdicts.wording import census_text, estimate_text, mean_text

REMARKS = "remarks.yaml"
CENSUS = "census"
"""The word of a place for a census rule; no design may have this name."""

Text = Annotated[str, Field(min_length=1)]

PLACE = re.compile(r"\{([^{}]*)\}")


class Remarks(BaseModel):
    """Remarks on the verdict of the registration with the hash `registration`.

    They do not apply to verdicts of other registrations. `findings` has a sentence with
    places for each part, `summary` has one for the whole claim, `findings_ko` and
    `summary_ko` have the same in Korean for the Korean pages, and `withdrawn` has the
    reason for each part whose headline is no longer valid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    registration: str
    summary: str = ""
    summary_ko: str = ""
    findings: dict[str, Text] = {}
    findings_ko: dict[str, Text] = {}
    withdrawn: dict[str, Text] = {}


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

    Remarks apply only to a full check of the registration that they name, not to its
    repetition with other seeds; otherwise they are ignored. Raises RequestError if they
    cannot be read, or if they name a part, a design, a contrast or a cell that the
    verdict does not have.
    """
    path = folder / REMARKS
    registered_check = verdict.budget == "full" and not verdict.first_seed
    remarks = read_remarks(path) if registered_check else None
    if remarks is None or remarks.registration != verdict.registration:
        return verdict
    names = [part.name for part in verdict.parts]
    parts = []
    try:
        for name in (*remarks.findings, *remarks.findings_ko, *remarks.withdrawn):
            if name not in names:
                raise ValueError(f"no part {name!r}; {did_you_mean(name, names)}")
        for part in verdict.parts:
            finding = filled(remarks.findings.get(part.name, ""), verdict)
            reason = remarks.withdrawn.get(part.name)
            parts.append(
                part.model_copy(update={"finding": finding, "withdrawn": reason})
            )
        summary = filled(remarks.summary, verdict)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from None
    return verdict.model_copy(update={"parts": parts, "summary": summary})


def filled(text: str, verdict: Verdict) -> str:
    """Return a finding with numbers in its places.

    Raises ValueError for a place that the verdict has no number for, and for a brace
    without its partner.
    """
    rest = PLACE.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError(f"{text!r} has a {{ or }} that belongs to no place")
    return PLACE.sub(lambda place: _number(place[1], verdict), text)


def _number(place: str, verdict: Verdict) -> str:
    fields = [field.strip() for field in place.split("|")]
    if len(fields) not in {2, 3}:
        raise ValueError(
            f"{{{place}}} is not {{DESIGN | CONTRAST}}, {{DESIGN | CONTRAST | effect}} "
            "or {DESIGN | CELL | METRIC}"
        )
    rules = {rule.name: rule for rule in verdict.census}
    if fields[0] == CENSUS:
        if fields[1] not in rules or len(fields) > 2:
            known = did_you_mean(" | ".join(fields[1:]), rules)
            raise ValueError(f"{{{place}}}: no such census rule; {known}")
        return census_text(rules[fields[1]])
    designs = {design.name: design for design in verdict.designs}
    if fields[0] not in designs:
        known = did_you_mean(fields[0], designs)
        raise ValueError(f"{{{place}}}: no design {fields[0]!r}; {known}")
    design, name = designs[fields[0]], fields[1]
    third = fields[2] if len(fields) == 3 else "estimate"
    contrasts = {contrast.name: contrast for contrast in design.contrasts}
    cells = {cell.cell: cell for cell in design.cells}
    if name in cells and third in cells[name].mean:
        return mean_text(cells[name].mean[third], third)
    if name in cells and name not in contrasts:
        known = did_you_mean(third, cells[name].mean) if len(fields) == 3 else ""
        wrong = f"no metric {third!r}; {known}" if known else "a cell needs a METRIC"
        raise ValueError(f"{{{place}}}: {wrong}")
    if name not in contrasts:
        known = did_you_mean(name, [*contrasts, *cells])
        raise ValueError(f"{{{place}}}: no contrast or cell {name!r}; {known}")
    if third not in QUANTITIES:
        known = did_you_mean(third, QUANTITIES)
        raise ValueError(f"{{{place}}}: no quantity {third!r}; {known}")
    if contrasts[name].effect is None:
        raise ValueError(f"{{{place}}}: the contrast has no effect")
    return QUANTITIES[third](contrasts[name])


QUANTITIES: dict[str, Callable[[ContrastVerdict], str]] = {
    "estimate": lambda contrast: estimate_text(contrast, interval=True),
    "effect": lambda contrast: estimate_text(contrast, interval=False),
    "n": lambda contrast: str(contrast.n),
    "p": lambda contrast: contrast.p_shown,
}
