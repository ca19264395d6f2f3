"""The command that draws: plot."""

import json as jsonlib
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
    exit_codes,
    expanded,
)

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.report.figures.drawing import Figure, Format

FIGURES = Path("figures")


def _complete(incomplete: str) -> list[str]:
    from normbench.config.choices import choices

    return [name for name in choices("claim") if name.startswith(incomplete)]


def plot(
    claim: Annotated[
        str | None,
        typer.Argument(
            metavar="[CLAIM]",
            help="Draw the verdict of this claim; of `claim list`.",
            autocompletion=_complete,
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Draw the means of any runs over this key of their config, such as "
            "batch_size.",
            show_default=False,
        ),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Draw the training curves of any runs.")
    ] = False,
    gallery: Annotated[
        bool,
        typer.Option("--gallery", help="Show what style runs make of their pictures."),
    ] = False,
    series: Annotated[
        str,
        typer.Option(
            metavar="KEY,KEY", help="Runs that agree in these keys are one series."
        ),
    ] = "norm",
    metric: Annotated[
        str | None,
        typer.Option(
            help="Such as test/error.  [default: the runs' primary metric; of curves "
            "train/batch_loss]",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only runs in which this holds, as in `results`; repeatable.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        Budget, typer.Option(help="Of the check whose verdict is drawn.")
    ] = Budget.full,
    results: Results = RESULTS,
    claims: Claims = CLAIMS,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="STEM",
            callback=expanded,
            help="File to write, without its ending; a claim's figures get their names "
            "after it.",
            show_default=False,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            callback=expanded,
            help="Folder to write to.  [default: figures; of a claim that beside its "
            "verdict]",
            show_default=False,
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="svg, png, or both.")] = "svg,png",
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Draw the figures of a claim's verdict, or one of any runs; print their paths."""
    with exit_codes():
        from normbench.errors import RequestError
        from normbench.report.figures import drawing

        asked = {
            "CLAIM": claim is not None,
            "--by": by is not None,
            "--curves": curves,
            "--gallery": gallery,
        }
        if sum(asked.values()) != 1:
            raise RequestError(f"say what to draw: one of {', '.join(asked)}")
        if output is not None and output_dir is not None:
            raise RequestError("--output and --output-dir exclude each other")
        formats = _formats(format)
        if claim is not None:
            figures = _of_claim(claim, claims, budget, config_dir)
            folder = claims / claim / "figures"
            if budget is not Budget.full:
                folder = folder.with_name(f"figures.{budget.value}")
        else:
            folder = FIGURES
            records = _records(results, where or (), series, by)
            keys = [key.strip() for key in series.split(",")]
            if by is not None:
                figures = _of_cells(records, by, keys, metric)
            elif curves:
                wanted = metric or "train/batch_loss"
                figures = _of_histories(records, keys, wanted, results)
            else:
                figures = _of_pictures(records, keys, results)
        stems = [
            (output_dir or folder) / name
            if output is None
            else output.with_name(output.name + (len(figures) > 1) * f"-{name}")
            for name in map(_file_name, figures)
        ]
        files = [
            file
            for figure, stem in zip(figures.values(), stems, strict=True)
            for file in drawing.save(figure, stem, formats)
        ]
        if json:
            typer.echo(jsonlib.dumps([{"file": str(file)} for file in files], indent=2))
        else:
            for file in files:
                typer.echo(file)


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
    from normbench.report.figures import verdict_figures
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
    drawn = verdict_figures.of_verdict(verdict, claim)
    if not drawn:
        raise RequestError(f"{path} has no cell and no contrast to draw")
    return drawn


def _records(
    results: Path, where: Sequence[str], series: str, by: str | None
) -> "list[RunRecord]":
    from normbench.errors import RequestError
    from normbench.records import query, store

    if not results.is_dir():
        raise RequestError(
            f"--results {results} is not a folder; `normbench train` makes it"
        )
    everything, damaged = store.all_records(results)
    for each in damaged:
        typer.echo(f"left out: {each}", err=True)
    records = query.matching(everything, where)
    if not records:
        asked = f" in which {' and '.join(where)}" if where else ""
        raise RequestError(
            f"{results} has no run{asked}; `normbench results` prints those there are"
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
    from normbench.report.figures.runs import of_cells

    primary = query.primary_metrics(records)
    if metric is None and len(primary) > 1:
        raise RequestError(
            f"these runs have different primary metrics ({', '.join(primary)}); "
            "--metric chooses one"
        )
    chosen = metric or primary[0]
    others = [key for key in series if key != by]
    query.groups(records, others, "--series")
    named = []
    for cell in query.cells(records, [by, *others], [chosen]):
        label = _label({key: cell.by[key] for key in others or [by]})
        named.append((label, str(cell.by.get("norm", label)), cell))
    return {f"{chosen}-by-{by}": of_cells(named, by)}


def _of_histories(
    records: "Sequence[RunRecord]", series: Sequence[str], metric: str, results: Path
) -> "dict[str, Figure]":
    from normbench.errors import Unreadable
    from normbench.records.query import groups
    from normbench.records.store import read_history, run_folder
    from normbench.report.figures.training import Group, of_histories

    drawn = []
    for values, members in groups(records, series, "--series"):
        label = _label(values)
        histories = []
        for each in members:
            try:
                histories.append(read_history(run_folder(results, each.run_id)))
            except Unreadable as error:
                typer.echo(f"left out: {error}", err=True)
        if histories:
            drawn.append(Group(label, str(values.get("norm", label)), histories))
    return {f"{metric}-curves": of_histories(drawn, metric)}


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
        members.sort(key=lambda each: each.config.seed)
        for each in members:
            try:
                found = picture(run_folder(results, each.run_id) / "stylised.png")
            except FileNotFoundError:
                continue
            except Unreadable as error:
                typer.echo(f"left out: {error}", err=True)
                continue
            pictures[_label(values)] = found
            break
    if not pictures:
        raise RequestError("none of these runs left pictures; style runs do")
    return {"gallery": gallery(pictures)}


def _label(values: Mapping[str, object]) -> str:
    """The values, but for a reparametrisation where there is none."""
    told = ("-" if each is None else str(each) for each in values.values())
    usual = len(values) > 1 and values.get("reparam") == "none"
    kept = zip(values, told, strict=True)
    return ", ".join(text for key, text in kept if not (usual and key == "reparam"))
