"""The command `compare`, a check of a user's own comparison of norms."""

from collections.abc import Callable
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from normbench.cli.claim import Details
from normbench.cli.comparisons import print_comparison, save
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
from normbench.cli.trials import (
    EngineOverrides,
    Workers,
    command_line,
    compose_engine,
    make_rounds,
)

if TYPE_CHECKING:
    from normbench.claims.trial import Trial
    from normbench.sweeps.round import Rounds
    from normbench.verdicts.comparisons import Comparison
    from normbench.verdicts.registration import Claim

Number = TypeVar("Number", int, float)

SEEDS = "8,16,24,32"
"""The default of --seeds."""
RACE_SEEDS = "6,8,10,12,16,20,24,32"
"""The default of --seeds with --minutes.

The numbers are close together: when the time is over, seeds beyond the last number that
all arms have are not used yet.
"""

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
        help="Learning rates at which every seed of each arm and level is trained.",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Numbers of seeds of each arm at each level at which the comparison is "
        "judged, at least 6. It stops at the first one that settles it; one number is "
        "a fixed number of seeds.",
        show_default=f"{SEEDS}; with --minutes {RACE_SEEDS}",
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
        metavar="pocock|obrien_fleming|kim_demets",
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
Minutes = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Rank the arms in this time: spend it on the arms and the seeds that "
        "decide most. The same command continues.",
        show_default="no limit",
    ),
]
ExitCode = Annotated[
    bool,
    typer.Option(
        "--exit-code",
        help="Exit with 0 only if the first arm is better than each other arm; with 10 "
        "if it is worse than one, 12 if that is not decided, 11 if no difference is "
        "relevant.",
    ),
]


def compare(
    overrides: Overrides = None,
    arm: Arms = None,
    margin: Margin = 0.01,
    metric: Metric = "test/error",
    rates: Rates = "0.05,0.1,0.2",
    seeds: Seeds = None,
    spending: SpendingOption = SpendingName.pocock,
    gate: Gate = 0.5,
    minutes: Minutes = None,
    engine: EngineOverrides = None,
    workers: Workers = None,
    redo_stale: RedoStale = False,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    details: Details = False,
    exit_code: ExitCode = False,
    json: Json = False,
) -> None:
    """Compare norms in an experiment of your own.

    At each level, the first arm is compared with each of the other arms. The levels are
    the combinations of the values in the KEY=VALUE arguments. Every seed is trained at
    every learning rate, and validation data choose the rate. The last line of the
    answer names the better arm, or says that no difference is relevant or that nothing
    is decided. The answer is exploratory, because no claim was registered before the
    runs. An arm stops as soon as its comparisons are settled. The same command
    continues an interrupted comparison.

    The answer and its figures are saved in --results, in the folder comparisons.
    `normbench report` shows them.

    With --minutes, all arms are compared with each other at one level. Arms that are
    worse stop early. The answer is a ranking, and says what is not known yet.

    Exit code: 0 if the comparison ended, whatever the answer (with --exit-code, 0, 10,
    11 or 12); 1 if a run left no record; 2 if the request was wrong; 130 after Ctrl-C,
    SIGTERM or SIGHUP.
    """
    with exit_codes():
        from normbench.claims.check import prepare
        from normbench.claims.comparison import comparison
        from normbench.claims.trial import Request
        from normbench.config.named_modules import import_named

        modules = import_named(module, overrides, arm, config_dir)
        rounds = make_rounds(results, modules, redo_stale)
        claim = comparison(
            arm or (),
            overrides or (),
            metric=metric,
            margin=margin,
            rates=_numbers(float, "--rates", rates, "0.05,0.1,0.2"),
            seeds=_looks(seeds, minutes),
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
            compared = _compared(claim, trial, rounds, minutes)
        files = save(compared, results)
        answer = compared.verdict or compared.ranking
        if json and answer is not None:
            typer.echo(answer.model_dump_json(indent=2))
        else:
            print_comparison(compared, files, details=details)
    if exit_code:
        from normbench.verdicts.comparisons import comparison_exit_code

        raise typer.Exit(comparison_exit_code(compared))


def _compared(
    claim: "Claim", trial: "Trial", rounds: "Rounds", minutes: float | None
) -> "Comparison":
    """Do the runs; return them with a verdict, or with `minutes` a ranking."""
    from normbench.claims.check import check
    from normbench.claims.comparison import budget, peak_rates
    from normbench.claims.race import race
    from normbench.verdicts.comparisons import Comparison

    if minutes is None:
        verdict = check(claim, trial, command_line())
        peak_lr = peak_rates(verdict.outcomes[0], trial)
        length = budget(claim, trial)
        return Comparison(claim=claim, verdict=verdict, peak_lr=peak_lr, budget=length)
    ranking = race(claim, trial, rounds, minutes=minutes, command=command_line())
    return Comparison(claim=claim, ranking=ranking)


def _looks(seeds: str | None, minutes: float | None) -> list[int]:
    """Return the numbers of --seeds, or their default.

    Raises RequestError for something else, or if `minutes` is not a positive number.
    """
    from normbench.errors import RequestError

    if minutes is not None and not 0 < minutes < inf:
        raise RequestError(f"--minutes {minutes:g} is not a positive number")
    default = SEEDS if minutes is None else RACE_SEEDS
    return _numbers(int, "--seeds", default if seeds is None else seeds, SEEDS)


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
