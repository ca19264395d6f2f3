"""The command `compare`, a check of a user's own comparison of norms."""

from math import inf
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from normbench.verdicts.ranking import Ranking
    from normbench.verdicts.verdict import Verdict

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
    int,
    typer.Option(
        metavar="NUMBER", min=6, help="Number of seeds of each arm at each level."
    ),
]
Gate = Annotated[
    float,
    typer.Option(
        metavar="NUMBER",
        help="An arm counts as trained if its training metric is better than this.",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Rank the arms in this time: spend it on the arms and the seeds that "
        "decide most. The same command continues.",
        show_default="no limit",
    ),
]


def compare(
    overrides: Overrides = None,
    arm: Arms = None,
    margin: Margin = 0.01,
    metric: Metric = "test/error",
    rates: Rates = "0.05,0.1,0.2",
    seeds: Seeds = 8,
    gate: Gate = 0.5,
    minutes: Minutes = None,
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
    registered before the runs. The same command continues an interrupted comparison.

    With --minutes, all arms are compared with each other at one level. Arms that are
    clearly worse stop early. The answer is a ranking, and says what it does not know.
    """
    with exit_codes():
        from normbench.claims.check import check, prepare
        from normbench.claims.comparison import comparison
        from normbench.claims.race import race
        from normbench.claims.trial import Request
        from normbench.report.text.ranking import ranking_text
        from normbench.report.text.verdict import verdict_text

        _require_positive(minutes)
        rounds = make_rounds(results, module, redo_stale)
        claim = comparison(
            arm or (),
            overrides or (),
            metric=metric,
            margin=margin,
            rates=_rates(rates),
            seeds=seeds,
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
        result: Verdict | Ranking
        with rounds:
            if minutes is None:
                result = check(claim, trial, command_line())
                text = verdict_text(result, text_width())
            else:
                result = race(claim, trial, minutes=minutes, command=command_line())
                text = ranking_text(result, text_width())
        typer.echo(result.model_dump_json(indent=2) if json else text)


def _require_positive(minutes: float | None) -> None:
    from normbench.errors import RequestError

    if minutes is not None and not 0 < minutes < inf:
        raise RequestError(f"--minutes {minutes:g} is not a positive number")


def _rates(text: str) -> list[float]:
    from normbench.errors import RequestError

    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise RequestError(
            f"--rates {text!r} is not a list of numbers, such as 0.05,0.1,0.2"
        ) from None
