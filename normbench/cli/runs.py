"""The runs that `results` and `plot` read from a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord

Tuning = Annotated[
    bool,
    typer.Option(
        "--tuning",
        help="Use the runs of tuning seeds too (seed 1000 and above), which only chose "
        "a learning rate. Means leave them out by default.",
    ),
]


def matching_records(
    results: Path, where: Sequence[str] | None, tuning: bool
) -> "tuple[list[RunRecord], list[RunRecord]]":
    """Return the records that meet the conditions `where`, and all records.

    Damaged records are left out and printed to standard error. Without `tuning`, so are
    the records of tuning seeds, and their number is printed. Raises RequestError if
    `results` is not a folder or a condition is wrong.
    """
    from normbench.errors import RequestError
    from normbench.records import query, store
    from normbench.verdicts.seeds import FIRST_TUNING_SEED

    if not results.is_dir():
        raise RequestError(
            f"--results {results} is not a folder; `normbench train` creates it, or "
            "name the folder of your runs with --results"
        )
    all_records, damaged = store.all_records(results)
    for error in damaged:
        typer.echo(f"left out: {error}", err=True)
    records = query.matching(all_records, where or ())
    for remark in _without_a_run(all_records, where or ()) if not records else ():
        typer.echo(f"note: {remark}", err=True)
    if tuning:
        return records, all_records
    kept = [record for record in records if record.config.seed < FIRST_TUNING_SEED]
    if left_out := len(records) - len(kept):
        plural = "s" if left_out > 1 else ""
        typer.echo(
            f"note: {left_out} run{plural} of tuning seeds left out; --tuning shows "
            f"{'them' if plural else 'it'}",
            err=True,
        )
    return kept, all_records


def _without_a_run(records: "Sequence[RunRecord]", where: Sequence[str]) -> list[str]:
    """Return a remark on each condition KEY=VALUE whose value no record has.

    A condition is left out if no value of the key is similar to its value.
    """
    from normbench.config.norm_facts import other_names
    from normbench.errors import did_you_mean
    from normbench.records.query import CONDITION, value

    remarks = []
    for condition in where:
        match = CONDITION.fullmatch(condition)
        if match is None or match["sign"] != "=":
            continue
        key, text = match["key"].strip(), match["text"].strip()
        leaves = {leaf for r in records if isinstance(leaf := value(r, key), str)}
        clause = did_you_mean(text, leaves, other_names() if key == "norm" else {})
        if text not in leaves and "?" in clause:
            remarks.append(f"no run has {key}={text}; {clause}")
    return remarks
