"""The command `plot`, which draws verdicts and runs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.check import Budget
from normbench.cli.options import (
    CLAIMS,
    RESULTS,
    Claims,
    ConfigDir,
    Json,
    Results,
    Where,
    complete_group,
    exit_codes,
    path_option,
)
from normbench.cli.runs import Tuning, matching_records
from normbench.cli.tables import print_json

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.report.figures.drawing import Figure, Format

FIGURES = Path("figures")
CURVES_METRIC = "train/batch_loss"

ClaimName = Annotated[
    str | None,
    typer.Argument(
        metavar="CLAIM",
        help="Draw the verdict of this claim. `claim list` prints the names.",
        autocompletion=complete_group("claim"),
        show_default=False,
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Draw the means of runs over this key of the config, such as batch_size.",
        show_default=False,
    ),
]
Curves = Annotated[
    bool, typer.Option("--curves", help="Draw the training curves of runs.")
]
Gallery = Annotated[
    bool,
    typer.Option("--gallery", help="Draw the pictures that runs of task=style made."),
]
Series = Annotated[
    str,
    typer.Option(
        metavar="KEYS",
        help="Config keys, such as norm,batch_size. Runs with equal values of them "
        "form one series.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Metric to draw, such as test/error.",
        show_default=f"the primary metric; for --curves, {CURVES_METRIC}",
    ),
]
CheckBudget = Annotated[
    Budget,
    typer.Option(
        metavar="smoke|quick|full",
        help="Draw the verdict of the check with this budget.",
    ),
]
Output = Annotated[
    Path | None,
    path_option(
        "--output",
        "File to write, without extension. If a verdict has several figures, their "
        "names are appended.",
        metavar="STEM",
        show_default=False,
    ),
]
OutputDir = Annotated[
    Path | None,
    path_option(
        "--output-dir",
        "Folder to write to.",
        show_default="figures; for CLAIM, CLAIM/figures in --claims",
    ),
]
Formats = Annotated[
    str, typer.Option(metavar="FORMATS", help="One of svg, png, and svg,png.")
]


def plot(
    claim: ClaimName = None,
    by: By = None,
    curves: Curves = False,
    gallery: Gallery = False,
    series: Series = "norm",
    metric: Metric = None,
    where: Where = None,
    budget: CheckBudget = Budget.full,
    results: Results = RESULTS,
    claims: Claims = CLAIMS,
    output: Output = None,
    output_dir: OutputDir = None,
    format: Formats = "svg,png",
    tuning: Tuning = False,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Draw the figures of a verdict, or a figure of runs.

    Choose exactly one of CLAIM, --by, --curves and --gallery. The command prints the
    paths of the files that it writes.
    """
    with exit_codes():
        from normbench.errors import RequestError
        from normbench.report.figures.drawing import save

        if [claim is not None, by is not None, curves, gallery].count(True) != 1:
            raise RequestError("choose exactly one of CLAIM, --by, --curves, --gallery")
        if output is not None and output_dir is not None:
            raise RequestError("--output and --output-dir exclude each other")
        formats = _formats(format)
        if claim is not None:
            suffix = "" if budget is Budget.full else f".{budget.value}"
            figures = _verdict_figures(claim, claims, budget, config_dir, results)
            folder = output_dir or claims / claim / f"figures{suffix}"
        else:
            keys = [key.strip() for key in series.split(",")]
            records = _records(results, where or (), keys, by, tuning)
            if by is not None:
                figures = _means(records, by, keys, metric)
            elif curves:
                figures = _curves(records, keys, metric or CURVES_METRIC, results)
            else:
                figures = _gallery(records, keys, results)
            folder = output_dir or FIGURES
        files = [
            str(file)
            for name, stem in _stems(figures, folder, output).items()
            for file in save(figures[name], stem, formats)
        ]
        if json:
            print_json([{"file": file} for file in files])
        else:
            typer.echo("\n".join(files))


def _formats(text: str) -> "list[Format]":
    """Return the formats in a text such as "svg,png".

    Raises RequestError if the text names another format.
    """
    from normbench.errors import RequestError

    formats: list[Format] = []
    for word in dict.fromkeys(word.strip() for word in text.split(",")):
        if word not in ("svg", "png"):
            raise RequestError(f"--format {text!r}: {word!r} is neither svg nor png")
        formats.append("svg" if word == "svg" else "png")
    return formats


def _file_name(name: str) -> str:
    """Return `name` with "-" for each part that a file name should not have."""
    return re.sub(r"[^\w.-]+|^\.+", "-", name)


def _stems(
    figures: "Mapping[str, Figure]", folder: Path, output: Path | None
) -> dict[str, Path]:
    """Return name of a figure -> path of its files, without extension."""
    stems = {name: folder / _file_name(name) for name in figures}
    if output is None:
        return stems
    if len(figures) == 1:
        return dict.fromkeys(figures, output)
    return {
        name: output.with_name(f"{output.name}-{stem.name}")
        for name, stem in stems.items()
    }


def _verdict_figures(
    name: str, claims: Path, budget: Budget, config_dir: Path | None, results: Path
) -> "dict[str, Figure]":
    """Return the figures of a verdict by name.

    Raises RequestError if there is no verdict, or nothing to draw.
    """
    from normbench.errors import RequestError
    from normbench.report.figures.seeds import runs_of
    from normbench.report.figures.verdict import verdict_figures
    from normbench.verdicts.files import read_verdict
    from normbench.verdicts.folders import VERDICT, claim_folder, no_verdict
    from normbench.verdicts.registration import read_claim, registration_hash

    claim = read_claim(name, config_dir)
    if budget is Budget.full:
        file, problem = claim_folder(claims, name) / VERDICT, no_verdict(claims, name)
    else:
        file = claims / name / f"verdict.{budget.value}.json"
        problem = f"{file} does not exist"
    verdict = read_verdict(file)
    if verdict is None:
        raise RequestError(
            f"{problem}; `normbench claim check {name} --budget {budget.value}` "
            "writes one"
        )
    # A claim that has changed does not describe the arms of the verdict.
    same = registration_hash(claim) == verdict.registration
    runs = runs_of(verdict, file, results)
    figures = verdict_figures(verdict, claim if same else None, runs)
    if not figures:
        raise RequestError(f"{file} has no cell and no contrast to draw")
    return figures


def _records(
    results: Path,
    where: Sequence[str],
    series: Sequence[str],
    by: str | None,
    tuning: bool,
) -> "list[RunRecord]":
    """Return the records to draw; print a note if a mean is over different configs."""
    from normbench.errors import RequestError
    from normbench.records import query

    records, _ = matching_records(results, where, tuning)
    if not records:
        conditions = f" with {' and '.join(where)}" if where else ""
        raise RequestError(
            f"{results} has no run{conditions}; `normbench results` lists its runs"
        )
    keys = [*series] if by is None else [*series, by]
    mixed = query.mixtures(records, keys)
    if mixed:
        typer.echo(
            f"note: some means are over runs that differ in {', '.join(mixed)}; add "
            "these keys to --series, or choose runs with --where",
            err=True,
        )
    return records


def _means(
    records: "Sequence[RunRecord]", by: str, series: Sequence[str], metric: str | None
) -> "dict[str, Figure]":
    """Return a figure with the means of each series over the values of `by`."""
    from normbench.errors import RequestError
    from normbench.records import query
    from normbench.report.figures.names import values_words
    from normbench.report.figures.runs import Mean, cells_figure

    primary = query.primary_metrics(records)
    if metric is None and len(primary) > 1:
        raise RequestError(
            f"these runs have different primary metrics ({', '.join(primary)}); choose "
            "a metric with --metric"
        )
    metric = metric or primary[0]
    series = [key for key in series if key != by]
    query.groups(records, series, "--series")  # raises for an unknown key
    runs_of = {
        tuple(values.values()): [run for run in group if run.status == "ok"]
        for values, group in query.groups(records, [by, *series])
    }
    means = []
    for cell in query.cells(records, [by, *series], [metric]):
        # If `by` is the only key, the values of `by` are the labels.
        label = values_words({key: cell.by[key] for key in series or [by]})
        norm = str(cell.by.get("norm", label))
        seeds = query.counted(runs_of[tuple(cell.by.values())], metric)
        means.append(Mean(label, norm, cell, seeds))
    return {f"{metric}-by-{by}": cells_figure(means, by)}


def _curves(
    records: "Sequence[RunRecord]", series: Sequence[str], metric: str, results: Path
) -> "dict[str, Figure]":
    """Return a figure with a curve for each series."""
    from normbench.errors import Unreadable
    from normbench.records.query import groups
    from normbench.records.store import read_history, run_folder
    from normbench.report.figures.names import values_words
    from normbench.report.figures.runs import Group, histories_figure

    curves = []
    for values, members in groups(records, series, "--series"):
        label = values_words(values)
        histories = []
        for record in members:
            try:
                histories.append(read_history(run_folder(results, record.run_id)))
            except Unreadable as error:
                typer.echo(f"left out: {error}", err=True)
        if histories:
            curves.append(Group(label, str(values.get("norm", label)), histories))
    return {f"{metric}-curves": histories_figure(curves, metric)}


def _gallery(
    records: "Sequence[RunRecord]", series: Sequence[str], results: Path
) -> "dict[str, Figure]":
    """Return a figure with a row of pictures for each series."""
    from normbench.errors import RequestError, Unreadable
    from normbench.records.query import groups
    from normbench.records.store import run_folder
    from normbench.report.figures.gallery import gallery
    from normbench.report.figures.names import values_words
    from normbench.system.untrusted import picture

    pictures = {}
    for values, members in groups(records, series, "--series"):
        # Use the readable picture with the lowest seed.
        for record in sorted(members, key=lambda record: record.config.seed):
            file = run_folder(results, record.run_id) / "stylised.png"
            try:
                pictures[values_words(values)] = picture(file)
                break
            except FileNotFoundError:
                continue
            except Unreadable as error:
                typer.echo(f"left out: {error}", err=True)
    if not pictures:
        raise RequestError("these runs have no pictures; only runs of task=style do")
    return {"gallery": gallery(pictures)}
