"""Compose the runs of a claim, do the runs, and find their records.

The runs are ordinary runs in the results folder, and sweeps and other claims can use
them too. A finished run is not repeated, so an interrupted check can be continued.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import get_args

from normbench.config.composer import Composer
from normbench.config.composition import resolve
from normbench.config.evaluation import is_ema
from normbench.config.identity import run_id
from normbench.config.overrides import parse, words
from normbench.config.schema import AtEnd, Engine, RunConfig, RunRecord
from normbench.errors import NormbenchError, RequestError, did_you_mean
from normbench.sweeps.plan import Plan, incompatible
from normbench.sweeps.round import RunSource
from normbench.verdicts.design import Design
from normbench.verdicts.registration import BudgetName
from normbench.verdicts.values import weights_of

RESERVED_KEYS = {
    "lr": "the design sets the rates; `compare` has --rates",
    "seed": "all arms have the same seeds; `compare` has --seeds",
    "probes": "the design sets the probes",
    "tracker": "the runs have no tracker; leave it out, or write tracker=none",
    "engine": "one engine does all runs; use --engine",
    "keep_weights": "a verdict needs no weights; leave it out",
}
"""Config keys that an arm or a level cannot set -> the reason."""
FIXED_VALUES = {"tracker": "none", "keep_weights": False}
"""Values that all runs of a check have. An arm or a level may repeat them."""
CHEAP = ("evaluations=1", "evaluation.batch_size=auto")
"""Overrides that save time and change no metric, except by rounding.

An arm or a level may replace them."""


@dataclass(frozen=True)
class Request:
    """How to do a check: where its records come from, its budget and its engine.

    `title` is shown with each round of runs. `frozen` has the rates of an earlier full
    check: design -> cell -> rate. The seeds of all cells begin at `first_seed`.
    """

    rounds: RunSource
    budget: BudgetName
    engine: Engine
    title: str = "check"
    config_dir: Path | None = None
    frozen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    first_seed: int = 0


Cell = tuple[str, str]
"""The name of a design, and the name of one of its cells."""


class Trial:
    """The runs of some designs.

    `skipped` has the cells whose norm does not fit their network: design -> cell ->
    reason. `records` has the record of every run by id, whatever its status.
    """

    def __init__(self, designs: Mapping[str, Design], request: Request) -> None:
        """Compose every cell. Raises RequestError if a cell cannot be composed."""
        self.designs, self.request = designs, request
        self.skipped: dict[str, dict[str, str]] = {}
        self.records: dict[str, RunRecord] = {}
        # Design -> cell -> id of a run. Cells with equal ids are the same runs.
        self._ids: dict[str, dict[str, str]] = {}
        self._compatible_cells: list[Cell] = []
        self._compose = Composer(request.config_dir)
        for name, design in designs.items():
            # Whether a norm fits does not depend on the rate and the seed.
            configs = {
                cell: self.config(name, cell, design.rates[0], 0)
                for cell in design.all_cells()
            }
            ids = {cell: run_id(config) for cell, config in configs.items()}
            reasons = incompatible({ids[cell]: c for cell, c in configs.items()})
            self._ids[name] = ids
            self.skipped[name] = {
                cell: reasons[key] for cell, key in ids.items() if key in reasons
            }
            self._compatible_cells += [
                (name, cell) for cell, key in ids.items() if key not in reasons
            ]

    def config(
        self, name: str, cell: str, lr: float, seed: int, *, tuning: bool = False
    ) -> RunConfig:
        """Return the config of one run of a cell of the design `name`.

        A run has the metrics that the design needs. A run of a tuning seed (`tuning`)
        has only the validation metric, and no probes. Raises RequestError if the
        overrides of the cell are wrong.
        """
        design = self.designs[name]
        metrics = [design.validation] if tuning else design.metrics()
        splits = dict.fromkeys(metric.partition("/")[0] for metric in metrics)
        measured = [split for split in splits if split in get_args(AtEnd)]
        fixed = [
            f"lr={lr!r}",
            f"seed={seed}",
            f"probes=[{'' if tuning else ','.join(design.probes)}]",
            f"evaluation.at_end=[{','.join(measured)}]",
            "tracker=none",
            "keep_weights=false",
        ]
        try:
            # If a key is set twice, the last override counts.
            overrides = {
                override.get_key_element(): override
                for text in (*CHEAP, *words(design.overrides(cell), "arm or level"))
                for override in [parse(text, self.request.config_dir)]
            }
            for override in overrides.values():
                text = str(override.input_line)
                if override.is_sweep_override():
                    raise RequestError(f"{text} names several values; a cell has one")
                _require_allowed(text, str(override.key_or_group), override.value())
            config = resolve(self._compose([*overrides.values(), *map(parse, fixed)]))
            _require_average(design, cell, config)
            return config
        except RequestError as error:
            where = ", ".join((name, cell.removesuffix("@-")))
            raise RequestError(f"{where}: {error}") from None

    def require_distinct_cells(self) -> None:
        """Raise RequestError if two cells of a design are the same runs."""
        for ids in self._ids.values():
            cell_of_id: dict[str, str] = {}
            for cell, key in ids.items():
                other = cell_of_id.setdefault(key, cell)
                if other != cell:
                    names = [name.removesuffix("@-") for name in (other, cell)]
                    raise RequestError(
                        f"{' and '.join(names)} are the same runs; leave one out"
                    )

    def first_rates(self) -> dict[Cell, list[float]]:
        """Return the rates of every cell with runs, in ascending order.

        A full check tries all rates of a design. Other budgets have one rate: that of
        an earlier full check, or the middle rate.
        """
        if self.request.budget == "full":
            return {
                (name, cell): sorted(set(self.designs[name].rates))
                for name, cell in self._compatible_cells
            }
        rates = {}
        for name, cell in self._compatible_cells:
            tried = sorted(self.designs[name].rates)
            frozen = self.request.frozen.get(name, {}).get(cell)
            rates[name, cell] = [tried[len(tried) // 2] if frozen is None else frozen]
        return rates

    def is_frozen(self, name: str, cell: str) -> bool:
        """Return whether an earlier full check chose the rate of a cell."""
        return self.request.budget != "full" and cell in self.request.frozen.get(
            name, {}
        )

    def runs(
        self,
        rates: Mapping[Cell, Sequence[float]],
        seeds: Mapping[Cell, int],
        what: str,
    ) -> dict[Cell, dict[float, dict[int, RunRecord]]]:
        """Do the runs of `seeds[cell]` seeds of each cell at its `rates`.

        Returns cell -> rate -> seed -> record. `what` is shown with the runs. Raises
        RequestError if no run has a metric that a design needs.
        """
        first = self.request.first_seed
        configs = {
            (key, lr): [self.config(*key, lr, first + n) for n in range(count)]
            for key, count in seeds.items()
            for lr in rates[key]
        }
        self.do(what, chain.from_iterable(configs.values()))
        runs: dict[Cell, dict[float, dict[int, RunRecord]]] = {key: {} for key in seeds}
        for (key, lr), of_rate in configs.items():
            runs[key][lr] = {c.seed: self.records[run_id(c)] for c in of_rate}
        for name in dict.fromkeys(name for name, _ in seeds):
            design = self.designs[name]
            records = [
                record
                for (of_design, _), by_rate in runs.items()
                if of_design == name
                for by_seed in by_rate.values()
                for record in by_seed.values()
            ]
            for metric in design.metrics():
                require_metric(metric, records)
        return runs

    def do(self, what: str, configs: Iterable[RunConfig]) -> dict[str, RunRecord]:
        """Do the missing runs of `configs`; keep all records, also of failed runs.

        Returns the records by run id. If the rounds have a deadline, records may be
        missing after it. Raises NormbenchError if a run has left no record before it.
        `what` is shown with the runs.
        """
        plan, rounds = self.plan(configs), self.request.rounds
        records = rounds.run(plan, f"{self.request.title}: {what}")
        self.records |= records
        missing = [key for key in plan.runs if key not in records]
        if missing and not rounds.is_over:
            raise NormbenchError(
                f"{len(missing)} of {len(plan.runs)} runs left no record "
                f"({missing[0]}, ..); the same command does them again"
            )
        return records

    def plan(self, configs: Iterable[RunConfig]) -> Plan:
        """Return the plan of runs; equal runs are one run, with the probes of all."""
        runs: dict[str, RunConfig] = {}
        for config in configs:
            key = run_id(config)
            runs[key] = _both(runs.get(key, config), config)
        return Plan(runs, {}, self.request.engine)


def _both(first: RunConfig, second: RunConfig) -> RunConfig:
    """Return `first`, and let it measure what `second`, the same run, measures too.

    Two designs may share a run and measure different probes on it.
    """
    at_end = dict.fromkeys([*first.evaluation.measured, *second.evaluation.measured])
    changes = {"at_end": [*at_end], "other_statistics": "end"}
    evaluation = first.evaluation.model_copy(update=changes)
    probes = sorted({*first.probes, *second.probes})
    return first.model_copy(update={"evaluation": evaluation, "probes": probes})


def _require_average(design: Design, cell: str, config: RunConfig) -> None:
    """Raise RequestError if the cell needs metrics of averaged weights and has none."""
    metrics = [design.validation, design.gate.metric]
    metrics += [c.metric for c in design.contrasts if cell in weights_of(c, design)]
    for metric in metrics:
        if config.ema is None and is_ema(metric.partition("/")[0]):
            raise RequestError(
                f"{metric} is of averaged weights, but ema is null; add ema=0.99"
            )


def _require_allowed(text: str, key: str, value: object) -> None:
    """Raise RequestError if the override `text` sets a reserved key."""
    section = key.partition(".")[0]
    is_fixed_value = key in FIXED_VALUES and value == FIXED_VALUES[key]
    if section in RESERVED_KEYS and not is_fixed_value:
        raise RequestError(
            f"{text} cannot be part of an arm or a level: {RESERVED_KEYS[section]}"
        )


def require_metric(metric: str, records: Sequence[RunRecord]) -> None:
    """Raise RequestError if some runs succeeded and none of them has this metric."""
    succeeded = [record for record in records if record.status == "ok"]
    known = {key for record in succeeded for key in (*record.metrics, *record.probes)}
    if succeeded and metric not in known:
        raise RequestError(
            f"no run has the metric {metric!r}; {did_you_mean(metric, known)}"
        )
