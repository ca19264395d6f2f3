"""The command compare: a question of the user's own, without a registration."""

from typing import Annotated

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
from normbench.cli.sweep import Arms, RedoStale
from normbench.cli.trials import (
    EngineOverrides,
    Workers,
    columns,
    command_line,
    compose_engine,
    observe,
)

Margin = Annotated[
    float, typer.Option(help="Differences below this count as zero.", min=0)
]
Metric = Annotated[
    str, typer.Option(help="Lower is better, unless the task maximizes it.")
]
Rates = Annotated[
    str, typer.Option(help="Learning rates to try for each arm and level.")
]
Gate = Annotated[
    float, typer.Option(help="An arm trained if its training metric is better.")
]


def compare(
    overrides: Overrides = None,
    arm: Arms = None,
    margin: Margin = 0.01,
    metric: Metric = "test/error",
    rates: Rates = "0.05,0.1,0.2",
    seeds: Annotated[int, typer.Option(min=6)] = 8,
    gate: Gate = 0.5,
    engine: EngineOverrides = None,
    workers: Workers = None,
    redo_stale: RedoStale = False,
    results: Results = RESULTS,
    config_dir: ConfigDir = None,
    module: Modules = None,
    json: Json = False,
) -> None:
    """Compare norms on a question of your own: tuned rates, a gate, intervals.

    Every other arm is compared with the first one: `supported` means that it is better,
    `refuted` that it is worse. Exploratory: nothing was registered.
    """
    with exit_codes():
        from normbench.claims.check import check, prepare
        from normbench.claims.comparison import comparison
        from normbench.claims.trial import Request
        from normbench.config.user_modules import import_modules
        from normbench.records import store
        from normbench.report.text.verdict import verdict_text
        from normbench.sweeps.round import Rounds

        import_modules(module or ())
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
        rounds = Rounds(
            store.Results(results, tuple(module or ()), redo_stale), observe
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
        typer.echo(plain if json else verdict_text(verdict, columns()))


def _rates(rates: str) -> list[float]:
    from normbench.errors import RequestError

    try:
        return [float(word) for word in rates.split(",")]
    except ValueError:
        raise RequestError(
            f"--rates {rates!r} is not a list of numbers, such as 0.05,0.1,0.2"
        ) from None
