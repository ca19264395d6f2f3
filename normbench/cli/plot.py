"""The command that draws: plot."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.claim import Budget
from normbench.cli.options import (
    CLAIMS,
    RESULTS,
    Claims,
    ConfigDir,
    Json,
    Results,
    completion_of,
    exit_codes,
    expanded,
)
from normbench.cli.tables import print_json

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.report.figures.drawing import Figure, Format

FIGURES = Path("figures")


ClaimName = Annotated[
    str | None,
    typer.Argument(
        metavar="[CLAIM]",
        help="Draw the verdict of this claim; of `claim list`.",
        autocompletion=completion_of("claim"),
        show_default=False,
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Draw the means of any runs over this key of their config, such as "
        "batch_size.",
        show_default=False,
    ),
]
Curves = Annotated[
    bool, typer.Option("--curves", help="Draw the training curves of any runs.")
]
Gallery = Annotated[
    bool, typer.Option("--gallery", help="Show the pictures of style runs.")
]
Series = Annotated[
    str,
    typer.Option(
        metavar="KEY,KEY", help="Runs that agree in these keys are one series."
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="Such as test/error.  [default: the runs' primary metric; of curves "
        "train/batch_loss]",
        show_default=False,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Only runs in which this holds, as in `results`; repeatable.",
        show_default=False,
    ),
]
OfBudget = Annotated[Budget, typer.Option(help="The budget of the check to draw.")]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="STEM",
        callback=expanded,
        help="File to write, without its ending; a claim's figures get their names "
        "after it.",
        show_default=False,
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        callback=expanded,
        help="Folder to write to.  [default: figures; of a claim that beside its "
        "verdict]",
        show_default=False,
    ),
]


def plot(
    claim: ClaimName = None,
    by: By = None,
    curves: Curves = False,
    gallery: Gallery = False,
    series: Series = "norm",
    metric: Metric = None,
    where: Where = None,
    budget: OfBudget = Budget.full,
    results: Results = RESULTS,
    claims: Claims = CLAIMS,
    output: Output = None,
    output_dir: OutputDir = None,
    format: Annotated[str, typer.Option(help="svg, png, or both.")] = "svg,png",
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Draw the figures of a claim's verdict, or one of any runs; print their paths."""
    with exit_codes():
        from normbench.errors import RequestError
        from normbench.report.figures import drawing

        subjects = {
            "CLAIM": claim is not None,
            "--by": by is not None,
            "--curves": curves,
            "--gallery": gallery,
        }
        if sum(subjects.values()) != 1:
            raise RequestError(f"say what to draw: one of {', '.join(subjects)}")
        if output is not None and output_dir is not None:
            raise RequestError("--output and --output-dir exclude each other")
        formats = _formats(format)
        folder = FIGURES
        if claim is not None:
            figures = _of_claim(claim, claims, budget, config_dir)
            full = budget is Budget.full
            folder = claims / claim / ("figures" if full else f"figures.{budget.value}")
        else:
            records = _records(results, where or (), series, by)
            keys = [key.strip() for key in series.split(",")]
            if by is not None:
                figures = _of_cells(records, by, keys, metric)
            elif curves:
                logged = metric or "train/batch_loss"
                figures = _of_histories(records, keys, logged, results)
            else:
                figures = _of_pictures(records, keys, results)
        files = []
        for name, figure in figures.items():
            stem = (output_dir or folder) / _file_name(name)
            if output is not None:
                suffix = f"-{_file_name(name)}" if len(figures) > 1 else ""
                stem = output.with_name(output.name + suffix)
            files += drawing.save(figure, stem, formats)
        lines = [str(file) for file in files]
        if json:
            print_json([{"file": line} for line in lines])
        else:
            typer.echo("\n".join(lines))


def _formats(text: str) -> "list[Format]":
    from normbench.errors import RequestError

    formats: list[Format] = []
    for word in dict.fromkeys(word.strip() for word in text.split(",")):
        if word not in ("svg", "png"):
            raise RequestError(f"--format {text!r}: {word!r} is neither svg nor png")
        formats.append("svg" if word == "svg" else "png")
    return formats


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+|^\.+", "-", name)


def _of_claim(
    name: str, claims: Path, budget: Budget, config_dir: Path | None
) -> "dict[str, Figure]":
    from normbench.errors import RequestError
    from normbench.report.figures.verdict import verdict_figures
    from normbench.verdicts.files import read_verdict
    from normbench.verdicts.registration import read_claim

    claim = read_claim(name, config_dir)
    full = budget is Budget.full
    path = claims / name / ("verdict.json" if full else f"verdict.{budget.value}.json")
    verdict = read_verdict(path)
    if verdict is None:
        raise RequestError(
            f"{path} is not there; "
            f"`normbench claim check {name} --budget {budget.value}` makes it"
        )
    figures = verdict_figures(verdict, claim)
    if not figures:
        raise RequestError(f"{path} has no cell and no contrast to draw")
    return figures


def _records(
    results: Path, where: Sequence[str], series: str, by: str | None
) -> "list[RunRecord]":
    from normbench.cli.results import matching_records
    from normbench.errors import RequestError
    from normbench.records import query

    records, _ = matching_records(results, where)
    if not records:
        conditions = f" in which {' and '.join(where)}" if where else ""
        raise RequestError(
            f"{results} has no run{conditions}; `normbench results` prints those there "
            "are"
        )
    keys = [*series.split(","), *([] if by is None else [by])]
    mixed = query.mixtures(records, [key.strip() for key in keys])
    if mixed:
        typer.echo(
            f"note: there are means over runs that differ in {', '.join(mixed)}; "
            "name them in --series, or choose with --where",
            err=True,
        )
    return records


def _of_cells(
    records: "Sequence[RunRecord]", by: str, series: Sequence[str], metric: str | None
) -> "dict[str, Figure]":
    from normbench.errors import RequestError
    from normbench.records import query
    from normbench.report.figures.runs import cells_figure

    primary = query.primary_metrics(records)
    if metric is None and len(primary) > 1:
        raise RequestError(
            f"these runs have different primary metrics ({', '.join(primary)}); "
            "--metric chooses one"
        )
    metric = metric or primary[0]
    others = [key for key in series if key != by]
    query.groups(records, others, "--series")
    labelled = []
    for cell in query.cells(records, [by, *others], [metric]):
        label = _label({key: cell.by[key] for key in others or [by]})
        labelled.append((label, str(cell.by.get("norm", label)), cell))
    return {f"{metric}-by-{by}": cells_figure(labelled, by)}


def _of_histories(
    records: "Sequence[RunRecord]", series: Sequence[str], metric: str, results: Path
) -> "dict[str, Figure]":
    from normbench.errors import Unreadable
    from normbench.records.query import groups
    from normbench.records.store import read_history, run_folder
    from normbench.report.figures.runs import Group, histories_figure

    drawn = []
    for values, members in groups(records, series, "--series"):
        label = _label(values)
        histories = []
        for record in members:
            try:
                histories.append(read_history(run_folder(results, record.run_id)))
            except Unreadable as error:
                typer.echo(f"left out: {error}", err=True)
        if histories:
            drawn.append(Group(label, str(values.get("norm", label)), histories))
    return {f"{metric}-curves": histories_figure(drawn, metric)}


def _of_pictures(
    records: "Sequence[RunRecord]", series: Sequence[str], results: Path
) -> "dict[str, Figure]":
    from normbench.errors import RequestError, Unreadable
    from normbench.records.query import groups
    from normbench.records.store import run_folder
    from normbench.report.figures.gallery import gallery
    from normbench.system.untrusted import picture

    pictures = {}
    for values, members in groups(records, series, "--series"):
        for record in sorted(members, key=lambda record: record.config.seed):
            file = run_folder(results, record.run_id) / "stylised.png"
            try:
                pictures[_label(values)] = picture(file)
            except FileNotFoundError:
                continue
            except Unreadable as error:
                typer.echo(f"left out: {error}", err=True)
                continue
            break
    if not pictures:
        raise RequestError("none of these runs left pictures; style runs do")
    return {"gallery": gallery(pictures)}


def _label(values: Mapping[str, object]) -> str:
    """The values, without a reparametrisation "none" beside others."""
    return ", ".join(
        "-" if value is None else str(value)
        for key, value in values.items()
        if (key, value) != ("reparam", "none") or len(values) == 1
    )
