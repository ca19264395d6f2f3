"""The command `recommend`, which says what verdicts tell of norms for a task."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normbench.cli.model_options import Input, Model, ModelOptions
from normbench.cli.options import (
    CLAIMS,
    RESULTS,
    Claims,
    ConfigDir,
    Json,
    Modules,
    Results,
    exit_codes,
)
from normbench.cli.tables import print_json, print_table, text_width
from normbench.errors import RequestError

if TYPE_CHECKING:
    from normbench.config.schema import RunRecord
    from normbench.report.text.recommendation import Section
    from normbench.verdicts.conditions import TaskKind
    from normbench.verdicts.recommendation import Recommendation

Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="The task: images, text or style.",
        show_default="all tasks",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="NUMBER",
        min=1,
        help="Samples of an optimizer step.",
        show_default="that of the task",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples-per-statistic",
        metavar="NUMBER",
        min=1,
        help="Samples that share the statistics of a batch norm (norm_batch).",
        show_default="the batch size",
    ),
]
Details = Annotated[
    bool,
    typer.Option(
        "--details", help="Show all intervals, losses and notes of the verdicts too."
    ),
]


def recommend(
    task: Task = None,
    batch_size: BatchSize = None,
    samples_per_statistic: Samples = None,
    model: Model = None,
    model_options: ModelOptions = None,
    input: Input = None,
    module: Modules = None,
    results: Results = RESULTS,
    claims: Claims = CLAIMS,
    config_dir: ConfigDir = None,
    details: Details = False,
    json: Json = False,
) -> None:
    """Say which norm to use, as far as verdicts tell.

    A norm is better than another only if a decided contrast says so, at the asked batch
    size or the nearest one that was measured. Without evidence, there is no order. Your
    own finished runs are listed too, and a command that would compare the norms between
    which nothing is decided.

    With --model, the norms of your network are compared with the verdicts. The task and
    the batch size are those of --input if you give no others.
    """
    with exit_codes():
        network = None
        if model is None and (model_options or input):
            raise RequestError("--model-options and --input need --model FACTORY")
        if model is not None:
            from normbench.cli.model_recommendation import (
                as_plain,
                own_network,
                section,
            )

            network = own_network(model, model_options or (), input, module or ())
            task, batch_size = task or network.task, batch_size or network.batch_size
        kinds = _kinds(task)
        recommendations = _recommendations(
            kinds, batch_size, samples_per_statistic, results, claims, config_dir
        )
        if json:
            plain = [each.model_dump(mode="json") for each in recommendations]
            for each, dumped in zip(recommendations, plain, strict=True):
                if network:
                    dumped["network"] = as_plain(network, each)
            print_json(plain)
            return
        for recommendation in recommendations:
            own = section(network, recommendation) if network else ()
            _print(recommendation, own, details=details)


def _print(
    recommendation: "Recommendation", own: "Iterable[Section]", *, details: bool
) -> None:
    """Print all sections of a recommendation; only a command may exceed the width.

    `own` are sections about the user's own network.
    """
    from normbench.report.text import recommendation as text
    from normbench.report.text.paragraph import paragraph

    width = text_width()
    typer.echo(paragraph("", f"{text.title(recommendation)}:", width))
    sections = [*text.sections(recommendation), *own]
    if details:
        sections += text.details(recommendation)
    for section in sections:
        if section.title:
            typer.echo(paragraph("", f"{section.title}:", width))
        if section.text:
            typer.echo(paragraph("", section.text, width))
        if section.rows:
            typer.echo("")
            print_table(section.rows, title="")
        for item in section.items:
            typer.echo(paragraph("- ", item, width, indent=2))
        if section.command:
            typer.echo(f"  {section.command}")
        typer.echo("")


def _kinds(task: str | None) -> "list[TaskKind]":
    """Return the tasks to print. Raises RequestError for an unknown task."""
    from normbench.errors import did_you_mean
    from normbench.verdicts.conditions import TASKS

    kinds = [kind for kind in TASKS if task in {None, kind}]
    if not kinds:
        raise RequestError(
            f"--task {task} is unknown; {did_you_mean(str(task), TASKS)}"
        )
    return kinds


def _recommendations(
    kinds: "list[TaskKind]",
    batch_size: int | None,
    samples: int | None,
    results: Path,
    claims: Path,
    config_dir: Path | None,
) -> "list[Recommendation]":
    from normbench.config.choices import choices
    from normbench.verdicts.conditions import asked_condition
    from normbench.verdicts.files import read_verdict
    from normbench.verdicts.folders import VERDICT, claim_folder
    from normbench.verdicts.own_runs import own_runs
    from normbench.verdicts.recommending import recommend
    from normbench.verdicts.registration import read_claim

    asked = {kind: asked_condition(kind, batch_size, samples) for kind in kinds}
    known = choices("claim", config_dir)
    registered = {name: read_claim(name, config_dir) for name in known}
    files = {name: claim_folder(claims, name) / VERDICT for name in known}
    verdicts = {n: verdict for n in known if (verdict := read_verdict(files[n]))}
    records = _records(results)
    return [
        recommend(
            kind,
            asked[kind],
            registered,
            verdicts,
            own_runs(records, kind, asked[kind], config_dir),
            default=batch_size is None,
            config_dir=config_dir,
        )
        for kind in kinds
    ]


def _records(results: Path) -> "list[RunRecord]":
    """Return all records of a folder; none if there is no default folder.

    Raises RequestError if another folder than the default one does not exist.
    """
    from normbench.records import store

    if not results.is_dir():
        if results == RESULTS:
            return []
        raise RequestError(
            f"--results {results} is not a folder; `normbench train` creates it, or "
            "name the folder of your runs with --results"
        )
    records, damaged = store.all_records(results)
    for error in damaged:
        typer.echo(f"left out: {error}", err=True)
    return records
