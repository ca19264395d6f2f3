"""The command `compare`, a check of a user's own comparison of norms."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

from normbench.cli.options import (
    RESULTS,
    ConfigDir,
    Json,
    Modules,
    Overrides,
    Results,
    exit_codes,
)
from normbench.cli.sweep import RedoStale
from normbench.cli.tables import text_width
from normbench.cli.trials import (
    EngineOverrides,
    Workers,
    command_line,
    compose_engine,
    make_rounds,
)

Number = TypeVar("Number", int, float)

Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        metavar="OVERRIDES",
        help="Arm to compare, such as norm=batch. Repeatable. An option with several "
        'values adds several arms, such as "norm=group norm.num_groups=2,4".',
    ),
]
Margin = Annotated[
    float,
    typer.Option(
        metavar="NUMBER", min=0, help="Differences below this margin count as zero."
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        metavar="KEY",
        help="Metric to compare. Lower is better, unless the task maximizes it.",
    ),
]
Rates = Annotated[
    str,
    typer.Option(
        metavar="NUMBERS",
        help="Learning rates from which the best is chosen for each arm and level.",
    ),
]
Seeds = Annotated[
    str,
    typer.Option(
        metavar="NUMBERS",
        help="Numbers of seeds of each arm at each level at which the comparison is "
        "judged. It stops at the first one that settles it; one number is a fixed "
        "number of seeds.",
    ),
]


class SpendingName(StrEnum):
    """The choices of --spending: how alpha is divided among the looks."""

    pocock = "pocock"
    obrien_fleming = "obrien_fleming"
    kim_demets = "kim_demets"


SpendingOption = Annotated[
    SpendingName,
    typer.Option(
        "--spending",
        help="How the error probability is divided among the numbers of seeds. pocock "
        "stops earliest, obrien_fleming spends next to nothing on the first ones.",
    ),
]
Gate = Annotated[
    float,
    typer.Option(
        metavar="NUMBER",
        help="An arm counts as trained if its training metric is better than this.",
    ),
]


def compare(
    overrides: Overrides = None,
    arm: Arms = None,
    margin: Margin = 0.01,
    metric: Metric = "test/error",
    rates: Rates = "0.05,0.1,0.2",
    seeds: Seeds = "8,16,24,32",
    spending: SpendingOption = SpendingName.pocock,
    gate: Gate = 0.5,
    engine: EngineOverrides = None,
    workers: Workers = None,
    redo_stale: RedoStale = False,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Compare norms in an experiment of your own.

    Example: normbench compare batch_size=2,8 --arm norm=batch --arm norm=group

    At each level, the first arm is compared with each of the other arms. The levels are
    the combinations of the values in the KEY=VALUE arguments. Learning rates are tuned
    on validation data. A verdict is `supported` if the other arm is better than the
    first arm, and `refuted` if it is worse. It is exploratory, because no claim was
    registered before the runs. An arm stops as soon as its comparisons are settled.
    The same command continues an interrupted comparison.
    """
    with exit_codes():
        from normbench.claims.check import check, prepare
        from normbench.claims.comparison import comparison
        from normbench.claims.trial import Request
        from normbench.report.text.verdict import verdict_text

        rounds = make_rounds(results, module, redo_stale)
        claim = comparison(
            arm or (),
            overrides or (),
            metric=metric,
            margin=margin,
            rates=_numbers(float, "--rates", rates, "0.05,0.1,0.2"),
            seeds=_numbers(int, "--seeds", seeds, "8,16,24,32"),
            spending=spending.value,
            gate=gate,
            config_dir=config_dir,
        )
        request = Request(
            rounds=rounds,
            budget="full",
            engine=compose_engine(engine, workers, config_dir),
            title="compare",
            config_dir=config_dir,
        )
        trial = prepare(claim, request)
        trial.require_distinct_cells()
        with rounds:
            verdict = check(claim, trial, command_line())
        plain = verdict.model_dump_json(indent=2)
        typer.echo(plain if json else verdict_text(verdict, text_width()))


def _numbers(
    kind: Callable[[str], Number], option: str, text: str, example: str
) -> list[Number]:
    """Return the numbers of an option. Raises RequestError for something else."""
    from normbench.errors import RequestError

    try:
        return [kind(number) for number in text.split(",")]
    except ValueError:
        raise RequestError(
            f"{option} {text!r} is not a list of numbers, such as {example}"
        ) from None
