"""The runs of a claim: composed, done, and looked up by what they are for.

They are ordinary runs under the results folder, shared with sweeps and with other
claims: what is finished is not done again, and an interrupted check goes on.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from normbench.config.composer import Composer
from normbench.config.composition import resolve
from normbench.config.identity import run_id
from normbench.config.overrides import parse, words
from normbench.config.schema import Engine, RunConfig, RunRecord
from normbench.errors import NormbenchError, RequestError, did_you_mean
from normbench.records.store import Results
from normbench.sweeps.plan import Plan, incompatible
from normbench.sweeps.round import Rounds
from normbench.verdicts.contrasts import is_maximized, metric_of, weights_of
from normbench.verdicts.registration import (
    FIRST_TUNING_SEED,
    BudgetName,
    Claim,
    Contrast,
    Design,
    arm_of,
)
from normbench.verdicts.verdict import Rate

QUICK_SEEDS = 6
SMOKE = "budget.epochs=1 budget.max_steps=10 evaluations=1"
"""What a smoke check has of every run."""
OF_THE_TRIAL = {
    "lr": "the design sets the rates; `compare` has --rates",
    "seed": "all arms have the same seeds; `compare` has --seeds",
    "probes": "the design sets the probes",
    "tracker": "the runs have no tracker; leave it out, or write tracker=none",
    "engine": "one engine does all runs; use --engine",
    "keep_weights": "a verdict needs no weights; leave it out",
}
"""Keys that no arm or level can have, and why."""
SAME_FOR_ALL = {"tracker": "none", "keep_weights": False}
"""What all runs have anyway; an arm or a level may repeat it."""


@dataclass(frozen=True)
class Request:
    """How a check is done: its runs are done in `rounds`, with `title` in their names.

    `frozen` are the rates of an earlier full check: design -> cell -> rate.
    """

    rounds: Rounds
    budget: BudgetName
    engine: Engine
    title: str = "check"
    config_dir: Path | None = None
    frozen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def results(self) -> Results:
        """Where the runs are recorded."""
        return self.rounds.results


def kept(claim: Claim, budget: BudgetName) -> dict[str, Design]:
    """The designs of `claim` that `budget` does, reduced to what it does of them.

    A contrast goes with any of its cells; a slope stays over two levels or more.
    """
    if budget == "full":
        return dict(claim.designs())
    designs = {}
    for name, design in claim.designs().items():
        reduction = claim.quick.get(name)
        if reduction is not None and reduction.cells == []:
            continue
        cells = reduction.cells if reduction else None
        overrides = reduction.overrides if reduction else ""
        if budget == "smoke":
            first, *_ = sorted(design.contrasts, key=lambda c: not c.primary)
            cells = list(weights_of(first, design))[:2]
            overrides = f"{overrides} {SMOKE}"
            design = design.model_copy(update={"crossovers": []})
        designs[name] = _reduced(design, cells, overrides)
    return designs


def _reduced(design: Design, cells: Sequence[str] | None, overrides: str) -> Design:
    trained = set(design.all_cells() if cells is None else cells)

    def stays(contrast: Contrast) -> bool:
        if contrast.slope is not None:
            return sum(arm_of(cell) == contrast.slope for cell in trained) > 1
        return set(contrast.weights or {}) <= trained

    changes = {
        "cells": [cell for cell in design.all_cells() if cell in trained],
        "contrasts": [c for c in design.contrasts if stays(c)],
        "levels": {
            level: f"{text} {overrides}".strip()
            for level, text in design.levels.items()
        },
    }
    return design.model_copy(update=changes)


def seeds_of(design: Design, budget: BudgetName) -> int:
    """How many test seeds a cell has."""
    return {"smoke": 1, "quick": QUICK_SEEDS, "full": design.seeds}[budget]


Cell = tuple[str, str]
"""The name of a design, and a cell of it."""


class Trial:
    """The runs of some designs.

    `skipped` are the cells that cannot work, with the reason: design -> cell -> reason.
    `records` are the records of all runs by id, however they ended.
    """

    def __init__(self, designs: Mapping[str, Design], request: Request) -> None:
        """Compose every cell. Raises RequestError if one cannot be composed."""
        self.designs, self.request = designs, request
        self.skipped: dict[str, dict[str, str]] = {}
        self.records: dict[str, RunRecord] = {}
        self._ids: dict[str, dict[str, str]] = {}
        self._working: list[Cell] = []
        self._compose = Composer(request.config_dir)
        for name, design in designs.items():
            # Whether a cell works does not depend on rate and seed.
            configs = {
                cell: self.config(name, cell, design.rates[0], 0, probes=True)
                for cell in design.all_cells()
            }
            self._ids[name] = ids = {cell: run_id(c) for cell, c in configs.items()}
            reasons = incompatible({ids[cell]: c for cell, c in configs.items()})
            self.skipped[name] = {
                cell: reasons[key] for cell, key in ids.items() if key in reasons
            }
            self._working += [(name, c) for c, key in ids.items() if key not in reasons]

    def config(
        self, name: str, cell: str, lr: float, seed: int, *, probes: bool = False
    ) -> RunConfig:
        """The config of one run of a cell of the design `name`."""
        design = self.designs[name]
        config_dir = self.request.config_dir
        try:
            # The last override of a key counts.
            given = {
                override.get_key_element(): override
                for text in words(design.overrides(cell), "arm or level")
                for override in [parse(text, config_dir)]
            }
            for override in given.values():
                text, key = override.input_line, str(override.key_or_group)
                section = key.partition(".")[0]
                if override.is_sweep_override():
                    raise RequestError(f"{text} names several values; a cell has one")
                if section in OF_THE_TRIAL and (
                    key not in SAME_FOR_ALL or override.value() != SAME_FOR_ALL[key]
                ):
                    raise RequestError(
                        f"{text} cannot be part of an arm or a level: "
                        f"{OF_THE_TRIAL[section]}"
                    )
            measured = ",".join(design.probes) if probes else ""
            added = [f"lr={lr!r}", f"seed={seed}", f"probes=[{measured}]"]
            added += ["tracker=none", "keep_weights=false"]
            return resolve(self._compose([*given.values(), *map(parse, added)]))
        except RequestError as error:
            raise RequestError(f"{name}, {cell}: {error}") from None

    def require_distinct_cells(self) -> None:
        """Raise RequestError if two cells of a design are the same runs."""
        for ids in self._ids.values():
            first: dict[str, str] = {}
            for cell, key in ids.items():
                other = first.setdefault(key, cell)
                if other != cell:
                    names = [name.removesuffix("@-") for name in (other, cell)]
                    raise RequestError(
                        f"{' and '.join(names)} are the same runs; leave one out"
                    )

    def rates(self) -> dict[str, dict[str, Rate]]:
        """The rate of every cell of every design: chosen, or as it was frozen."""
        if self.request.budget != "full":
            return {name: self._frozen(name) for name in self.designs}
        tried = {
            (name, cell): sorted(set(self.designs[name].rates))
            for name, cell in self._working
        }
        most = {
            (name, cell): len(rates) + self.designs[name].extend
            for (name, cell), rates in tried.items()
        }
        while True:
            chosen = self._tune(tried)
            extended = {
                key: _with_one_more(tried[key], rate)
                for key, rate in chosen.items()
                if rate.at_edge and len(tried[key]) < most[key]
            }
            if not extended:
                break
            tried |= extended
        rates = {
            name: dict.fromkeys(skipped, _untuned(self.designs[name].rates[0]))
            for name, skipped in self.skipped.items()
        }
        for (name, cell), rate in chosen.items():
            rates[name][cell] = rate
        return rates

    def cells(
        self, rates: Mapping[str, Mapping[str, Rate]]
    ) -> dict[str, dict[str, dict[int, RunRecord]]]:
        """Design -> cell -> seed -> record, of the test seeds at the cells' rates."""
        configs = {
            (name, cell, seed): self.config(
                name, cell, rates[name][cell].lr, seed, probes=True
            )
            for name, cell in self._working
            for seed in range(seeds_of(self.designs[name], self.request.budget))
        }
        self._do("test seeds", configs.values())
        cells: dict[str, dict[str, dict[int, RunRecord]]] = {
            n: {} for n in self.designs
        }
        for (name, cell, seed), config in configs.items():
            cells[name].setdefault(cell, {})[seed] = self.records[run_id(config)]
        for name, design in self.designs.items():
            records = [r for runs in cells[name].values() for r in runs.values()]
            for metric in (design.gate.metric, *(c.metric for c in design.contrasts)):
                require_metric(metric, records)
        return cells

    def _tune(self, tried: Mapping[Cell, Sequence[float]]) -> dict[Cell, Rate]:
        """The best of the rates that are `tried`, by the tuning seeds."""
        configs = {
            (name, cell, lr): [
                self.config(name, cell, lr, FIRST_TUNING_SEED + i)
                for i in range(self.designs[name].tuning_seeds)
            ]
            for (name, cell), rates in tried.items()
            if len(self.designs[name].rates) > 1
            for lr in rates
        }
        self._do("rates", chain.from_iterable(configs.values()))
        chosen = {}
        for (name, cell), rates in tried.items():
            records = {
                lr: [self.records[run_id(c)] for c in configs.get((name, cell, lr), ())]
                for lr in rates
            }
            design = self.designs[name]
            require_metric(design.validation, [*chain.from_iterable(records.values())])
            chosen[name, cell] = choose(design, records)
        return chosen

    def _do(self, what: str, configs: Iterable[RunConfig]) -> None:
        """Finish all of `configs` and keep their records, those of failures too.

        Raises NormbenchError if a run has left no record at all.
        """
        runs: dict[str, RunConfig] = {}
        for config in configs:
            key = run_id(config)
            # Designs may share a run and measure different things on it.
            probes = {*config.probes, *(runs[key].probes if key in runs else ())}
            runs[key] = config.model_copy(update={"probes": sorted(probes)})
        plan = Plan(runs, {}, self.request.engine)
        records = self.request.rounds.run(plan, f"{self.request.title}: {what}")
        self.records |= records
        lost = [key for key in runs if key not in records]
        if lost:
            raise NormbenchError(
                f"{len(lost)} of {len(runs)} runs left no record ({lost[0]}, ..); "
                "the same command does them again"
            )

    def _frozen(self, name: str) -> dict[str, Rate]:
        design = self.designs[name]
        middle = sorted(design.rates)[len(design.rates) // 2]
        known = self.request.frozen.get(name, {})
        return {
            cell: _untuned(known.get(cell, middle), frozen=cell in known)
            for cell in design.all_cells()
        }


def _untuned(lr: float, *, frozen: bool = False) -> Rate:
    return Rate(lr=lr, validation={}, good=[], at_edge=False, frozen=frozen)


def _with_one_more(rates: Sequence[float], best: Rate) -> list[float]:
    """`rates`, ascending, and one beyond the edge that is the best."""
    if best.lr == rates[0]:
        return [rates[0] / 2, *rates]
    return [*rates, rates[-1] * 2]


def choose(design: Design, seen: Mapping[float, Sequence[RunRecord]]) -> Rate:
    """The rate with the best mean validation metric.

    Where every rate diverged, the lowest is the best of them, and at the edge. One rate
    that is the only one is not tuned, and at no edge. The best is the lowest mean, or
    the highest if the task maximizes the metric.
    """
    runs = [record for records in seen.values() for record in records]
    sign = -1 if is_maximized(design.validation, runs) else 1
    validation: dict[float, float | None] = {}
    for lr, records in sorted(seen.items()):
        values = [metric_of(each, design.validation) for each in records]
        finite = [value for value in values if value is not None]
        whole = len(finite) == design.tuning_seeds
        validation[lr] = statistics.mean(finite) if whole else None
    rates = list(validation)
    scores = {lr: value for lr, value in validation.items() if value is not None}
    best = min(scores, key=lambda lr: sign * scores[lr], default=rates[0])
    quantity = design.validation.partition("/")[2]
    margins = [
        each.margin
        for each in design.contrasts
        if each.metric.partition("/")[2] == quantity and not each.log2
    ]
    within = sign * scores.get(best, 0.0) + min(margins, default=0.0)
    return Rate(
        lr=best,
        validation={f"{lr:g}": value for lr, value in validation.items()},
        good=[lr for lr, value in scores.items() if sign * value <= within],
        at_edge=len(rates) > 1 and best in {rates[0], rates[-1]},
        frozen=False,
    )


def require_metric(metric: str, records: Sequence[RunRecord]) -> None:
    """Raise RequestError if runs ended and none of them has this metric."""
    ended = [record for record in records if record.status == "ok"]
    known = {key for record in ended for key in (*record.metrics, *record.probes)}
    if ended and metric not in known:
        raise RequestError(
            f"no run has the metric {metric!r}; {did_you_mean(metric, known)}"
        )
