"""The runs of a claim: composed, done, and looked up by what they are for.

They are ordinary runs under the results folder, shared with sweeps and with other
claims: what is finished is not done again, and an interrupted check goes on.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from normbench.verdicts.contrasts import metric_of, weights_of
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
    """The designs of `claim` as `budget` does them; those that it leaves out are not.

    A contrast goes with any of its cells; a slope stays over two levels or more.
    """
    designs = {}
    for name, design in claim.designs().items():
        less = claim.quick.get(name)
        if budget == "full":
            designs[name] = design
        elif less is None or less.cells != []:
            cells = None if less is None else less.cells
            overrides = "" if less is None else less.overrides
            if budget == "smoke":
                first, *_ = sorted(design.contrasts, key=lambda c: not c.primary)
                cells = list(weights_of(first, design))[:2]
                overrides = f"{overrides} {SMOKE}"
            designs[name] = _reduced(design, cells, overrides, budget)
    return designs


def _reduced(
    design: Design, cells: Sequence[str] | None, overrides: str, budget: BudgetName
) -> Design:
    trained = set(design.all_cells() if cells is None else cells)

    def stays(contrast: Contrast) -> bool:
        if contrast.slope is not None:
            return sum(arm_of(cell) == contrast.slope for cell in trained) > 1
        return set(contrast.weights or {}) <= trained

    levels = {
        level: f"{text} {overrides}".strip() for level, text in design.levels.items()
    }
    return design.model_copy(
        update={
            "cells": [cell for cell in design.all_cells() if cell in trained],
            "contrasts": [each for each in design.contrasts if stays(each)],
            "crossovers": [] if budget == "smoke" else design.crossovers,
            "levels": levels,
        }
    )


def seeds_of(design: Design, budget: BudgetName) -> int:
    """How many test seeds a cell has."""
    return {"smoke": 1, "quick": QUICK_SEEDS, "full": design.seeds}[budget]


class Trial:
    """The runs of some designs.

    `skipped` are the cells that cannot work, with the reason: design -> cell -> reason.
    `records` are all runs that were looked up, by id, however they ended.
    """

    def __init__(self, designs: Mapping[str, Design], request: Request) -> None:
        """Compose every cell. Raises RequestError where one cannot be."""
        self.designs, self.request = designs, request
        self.skipped: dict[str, dict[str, str]] = {}
        self.records: dict[str, RunRecord] = {}
        self._ids: dict[str, dict[str, str]] = {}
        self._compose = Composer(request.config_dir)
        for name, design in designs.items():
            first = {cell: self._first(name, cell) for cell in design.all_cells()}
            self._ids[name] = {cell: key for cell, (key, _) in first.items()}
            reasons = incompatible(dict(first.values()))
            self.skipped[name] = {
                cell: reasons[key] for cell, (key, _) in first.items() if key in reasons
            }

    def config(
        self, name: str, cell: str, lr: float, seed: int, *, probes: bool = False
    ) -> RunConfig:
        """What one run of a cell of the design `name` is asked for."""
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
            own = [f"lr={lr!r}", f"seed={seed}", f"probes=[{measured}]"]
            own += ["tracker=none", "keep_weights=false"]
            parsed = [*given.values(), *map(parse, own)]
            return resolve(self._compose(parsed))
        except RequestError as error:
            raise RequestError(f"{name}, {cell}: {error}") from None

    def require_distinct_cells(self) -> None:
        """Raise RequestError where two cells of a design are the same runs."""
        for ids in self._ids.values():
            first: dict[str, str] = {}
            for cell, key in ids.items():
                other = first.setdefault(key, cell)
                if other != cell:
                    names = [each.removesuffix("@-") for each in (other, cell)]
                    raise RequestError(
                        f"{' and '.join(names)} are the same runs, which nothing can "
                        "tell apart; leave one out"
                    )

    def rates(self) -> dict[str, dict[str, Rate]]:
        """The rate of every cell of every design: chosen, or as it was frozen."""
        if self.request.budget != "full":
            return {name: self._frozen(name) for name in self.designs}
        tried = {
            name: {cell: sorted(set(design.rates)) for cell in self._working(name)}
            for name, design in self.designs.items()
        }
        most = {
            name: {
                cell: len(rates) + self.designs[name].extend
                for cell, rates in c.items()
            }
            for name, c in tried.items()
        }
        while True:
            seen = self._tune(tried)
            chosen = {
                name: {c: choose(self.designs[name], seen[name][c]) for c in cells}
                for name, cells in tried.items()
            }
            further = False
            for name, cells in chosen.items():
                for cell, rate in cells.items():
                    known = tried[name][cell]
                    if rate.at_edge and len(known) < most[name][cell]:
                        low = rate.lr == known[0]
                        new = known[0] / 2 if low else known[-1] * 2
                        tried[name][cell] = sorted([*known, new])
                        further = True
            if not further:
                return {name: chosen[name] | self._unworkable(name) for name in chosen}

    def cells(
        self, rates: Mapping[str, Mapping[str, Rate]]
    ) -> dict[str, dict[str, dict[int, RunRecord]]]:
        """Design -> cell -> seed -> record, of the test seeds at the cells' rates."""
        wanted = {
            (name, cell, seed): self.config(
                name, cell, rates[name][cell].lr, seed, probes=True
            )
            for name, design in self.designs.items()
            for cell in self._working(name)
            for seed in range(seeds_of(design, self.request.budget))
        }
        self._do("test seeds", list(wanted.values()))
        cells: dict[str, dict[str, dict[int, RunRecord]]] = {
            name: {cell: {} for cell in self._working(name)} for name in self.designs
        }
        for (name, cell, seed), config in wanted.items():
            cells[name][cell][seed] = self.records[run_id(config)]
        for name, design in self.designs.items():
            measured = [r for runs in cells[name].values() for r in runs.values()]
            for metric in (design.gate.metric, *(c.metric for c in design.contrasts)):
                require_metric(metric, measured)
        return cells

    def _tune(
        self, tried: Mapping[str, Mapping[str, Sequence[float]]]
    ) -> dict[str, dict[str, dict[float, list[RunRecord]]]]:
        wanted = {
            (name, cell, lr, seed): self.config(name, cell, lr, seed)
            for name, cells in tried.items()
            for cell, rates in cells.items()
            if len(self.designs[name].rates) > 1
            for lr in rates
            for seed in range(
                FIRST_TUNING_SEED,
                FIRST_TUNING_SEED + self.designs[name].tuning_seeds,
            )
        }
        self._do("rates", list(wanted.values()))
        seen: dict[str, dict[str, dict[float, list[RunRecord]]]] = {
            name: {cell: {lr: [] for lr in rates} for cell, rates in cells.items()}
            for name, cells in tried.items()
        }
        for (name, cell, lr, _), config in wanted.items():
            seen[name][cell][lr].append(self.records[run_id(config)])
        for name, cells in seen.items():
            tuned = [r for c in cells.values() for runs in c.values() for r in runs]
            require_metric(self.designs[name].validation, tuned)
        return seen

    def _do(self, what: str, configs: Sequence[RunConfig]) -> None:
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

    def _first(self, name: str, cell: str) -> tuple[str, RunConfig]:
        """Whether a cell works does not depend on rate and seed."""
        lr = self.designs[name].rates[0]
        config = self.config(name, cell, lr, 0, probes=True)
        return run_id(config), config

    def _working(self, name: str) -> list[str]:
        skipped = self.skipped[name]
        return [c for c in self.designs[name].all_cells() if c not in skipped]

    def _unworkable(self, name: str) -> dict[str, Rate]:
        lr = self.designs[name].rates[0]
        nothing = Rate(lr=lr, validation={}, good=[], at_edge=False, frozen=False)
        return dict.fromkeys(self.skipped[name], nothing)

    def _frozen(self, name: str) -> dict[str, Rate]:
        design = self.designs[name]
        middle = sorted(design.rates)[len(design.rates) // 2]
        known = self.request.frozen.get(name, {})
        return {
            cell: Rate(
                lr=known.get(cell, middle),
                validation={},
                good=[],
                at_edge=False,
                frozen=cell in known,
            )
            for cell in design.all_cells()
        }


def choose(design: Design, seen: Mapping[float, Sequence[RunRecord]]) -> Rate:
    """The rate with the best mean validation metric.

    Where every rate diverged, the lowest is the best of them, and at the edge. One rate
    that is the only one is not tuned, and at no edge.
    """
    validation: dict[float, float | None] = {}
    for lr, records in sorted(seen.items()):
        values = [metric_of(each, design.validation) for each in records]
        finite = [value for value in values if value is not None]
        whole = len(finite) == design.tuning_seeds
        validation[lr] = statistics.mean(finite) if whole else None
    rates = list(validation)
    scores = {lr: value for lr, value in validation.items() if value is not None}
    best = min(scores, key=lambda lr: scores[lr], default=rates[0])
    quantity = design.validation.partition("/")[2]
    margins = [
        each.margin
        for each in design.contrasts
        if each.metric.partition("/")[2] == quantity and not each.log2
    ]
    within = scores.get(best, 0.0) + min(margins, default=0.0)
    return Rate(
        lr=best,
        validation={f"{lr:g}": value for lr, value in validation.items()},
        good=[lr for lr, value in scores.items() if value <= within],
        at_edge=len(rates) > 1 and best in {rates[0], rates[-1]},
        frozen=False,
    )


def require_metric(metric: str, records: Sequence[RunRecord]) -> None:
    """Raise RequestError where runs went to their end and none has this metric."""
    ended = [each for each in records if each.status == "ok"]
    known = {key for each in ended for key in (*each.metrics, *each.probes)}
    if ended and metric not in known:
        raise RequestError(
            f"no run has the metric {metric!r}; {did_you_mean(metric, known)}"
        )
