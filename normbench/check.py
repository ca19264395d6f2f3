"""A claim from its registration to its verdict: theorems, rates, test seeds.

The runs are ordinary runs under the results folder, shared with sweeps and with other
claims: what is finished is not done again, and an interrupted check goes on.
"""

import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from normbench import claims, record, theorems
from normbench.census import census
from normbench.choices import choices
from normbench.claims import Rate, Verdict
from normbench.config import Composer, parse, resolve, run_id
from normbench.engines.local import cores, run_all
from normbench.errors import NormbenchError, RequestError
from normbench.plan import Forecast, Plan, grid, incompatible, standing, words
from normbench.progress import SweepObserver
from normbench.provenance import comes_from_this_code
from normbench.registration import (
    FIRST_TUNING_SEED,
    BudgetName,
    Claim,
    Contrast,
    Design,
    Gate,
    registration_hash,
)
from normbench.schema import LocalEngine, RunConfig, RunRecord

QUICK_SEEDS = 6
EVALUATION_AND_START_UP = 1.17
"""What a run costs beside its seconds, as a factor; measured."""
EXTRA = "extra"
"""The arm that a check is given beside the registered ones."""


@dataclass(frozen=True)
class Request:
    """How a check is done; `observe` makes what follows each round of runs."""

    results: Path
    budget: BudgetName
    engine: LocalEngine
    observe: Callable[[str], SweepObserver]
    config_dir: Path | None = None
    modules: Sequence[str] = ()
    frozen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    redo_stale: bool = False


@dataclass(frozen=True)
class Cost:
    """Runs of a check as if none were finished, and their core seconds."""

    tuning_runs: int
    test_runs: int
    core_seconds: float


def check(claim: Claim, request: Request, command: str) -> Verdict:
    """Do what is missing of `claim` and judge it. `command` is how to say it again.

    Raises RequestError before any run where a design cannot be composed.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    designs = {
        name: kept
        for name, design in claim.designs().items()
        if (kept := _kept(claim, name, design, request.budget)) is not None
    }
    trial = _Trial(designs, request)
    findings = [
        claims.judge_theorem(theorem, theorems.statement(theorem.check), *found)
        for theorem in claim.theorems
        for found in [_finding(theorem.check)]
    ]
    rates = trial.rates()
    cells = trial.cells(rates)
    everything = [r for d in cells.values() for c in d.values() for r in c.values()]
    judged = {
        name: claims.judge_design(
            name,
            design,
            cells[name],
            rates[name],
            trial.skipped[name],
            claim.alpha,
            tested=request.budget != "smoke",
        )
        for name, design in designs.items()
    }
    return claims.make_verdict(
        claim,
        registration=registration_hash(claim),
        budget=request.budget,
        caveats=_caveats(request, everything, rates),
        theorems=findings,
        mechanisms=[judged[name] for name in claim.mechanisms if name in judged],
        outcomes=[judged[name] for name in claim.outcomes if name in judged],
        census=census() if claim.census and request.budget != "smoke" else {},
        run_ids=sorted({finished.run_id for finished in everything}),
        command=command,
        started=started,
        environment=claims.environment_of(everything),
    )


def with_arm(claim: Claim, overrides: str) -> Claim:
    """`claim` with one more arm in each outcome, and exploratory contrasts of it.

    They are the registered ones with this arm in the place of the one that the sentence
    is about: that of the positive weights.
    """

    def wider(design: Design) -> Design:
        cells = design.all_cells()
        added, contrasts = [], []
        for contrast in design.contrasts:
            if not contrast.primary:
                continue
            weights = claims.weights_of(contrast, design)
            about = {_arm(cell) for cell, weight in weights.items() if weight > 0}
            new = {
                f"{EXTRA}@{_level(cell)}" if _arm(cell) in about else cell: weight
                for cell, weight in weights.items()
            }
            added += [cell for cell in new if _arm(cell) == EXTRA]
            contrasts.append(
                contrast.model_copy(
                    update={
                        "name": f"{contrast.name}, for {overrides}",
                        "weights": new,
                        "slope": None,
                        "primary": False,
                        "exploratory": True,
                    }
                )
            )
        return design.model_copy(
            update={
                "arms": {**design.arms, EXTRA: overrides},
                "cells": [*cells, *dict.fromkeys(added)],
                "contrasts": [*design.contrasts, *contrasts],
            }
        )

    outcomes = {name: wider(design) for name, design in claim.outcomes.items()}
    return claim.model_copy(update={"outcomes": outcomes})


def comparison(
    arms: Sequence[str],
    overrides: Sequence[str],
    *,
    metric: str,
    margin: float,
    rates: Sequence[float],
    seeds: int,
    gate: float,
) -> Claim:
    """An unregistered question: how do the other arms differ from the first?

    `arms` and `overrides` are in the grammar of a sweep: each combination of an arm's
    values is an arm of its own, and each of the overrides' a level. Lower is better.
    """
    names = [text for arm in arms for text in _combinations(words(arm))]
    if len(names) < 2:
        raise RequestError(
            f"{len(names)} arms are nothing to compare; name two or more"
        )
    levels = {text or "-": text for text in _combinations(overrides)}
    first, *others = dict.fromkeys(names)
    contrasts = [
        Contrast(
            name=f"{arm} against {first}" + f", {level}" * (level != "-"),
            metric=metric,
            weights={f"{arm}@{level}": 1.0, f"{first}@{level}": -1.0},
            says="less",
            margin=margin,
            reason="given on the command line",
            primary=True,
            exploratory=True,
        )
        for arm in others
        for level in levels
    ]
    design = Design(
        question="Which arm has the lower metric?",
        common="",
        arms={arm: arm for arm in (first, *others)},
        levels=levels,
        rates=list(rates),
        validation=metric.replace("test", "val", 1),
        seeds=seeds,
        seconds=10.0,
        gate=Gate(metric="train/" + metric.partition("/")[2], below=gate),
        contrasts=contrasts,
    )
    return Claim(
        name="comparison",
        statement=f"{' and '.join(others)} against {first}",
        source="asked on the command line",
        confounds=["rates are tuned for each arm and level", "seeds are paired"],
        outcomes={"comparison": design},
    )


def _combinations(overrides: Sequence[str]) -> list[str]:
    cells = grid(overrides, None)
    return [" ".join(str(each.input_line) for each in cell) for cell in cells]


def _arm(cell: str) -> str:
    return cell.rpartition("@")[0]


def _level(cell: str) -> str:
    return cell.rpartition("@")[2]


def cost(claim: Claim, budget: BudgetName) -> Cost:
    """What a check costs on an empty results folder, one further rate a cell included.

    Runs that designs share are counted for each.
    """
    tuning = test = 0
    seconds = 0.0
    for name, design in claim.designs().items():
        kept = _kept(claim, name, design, budget)
        if kept is None:
            continue
        cells = len(kept.all_cells())
        of_rates = 0
        if budget == "full" and len(kept.rates) > 1:
            of_rates = cells * len(kept.rates) * kept.tuning_seeds
        of_seeds = cells * _seeds(kept, budget)
        tuning, test = tuning + of_rates, test + of_seeds
        seconds += (of_rates + of_seeds) * kept.seconds
    return Cost(tuning, test, seconds * EVALUATION_AND_START_UP)


def require_committed(name: str, config_dir: Path | None) -> None:
    """Raise RequestError unless the yaml of a claim is in git as it stands.

    That of an installed package cannot be changed by hand, and passes.
    """
    path = choices("claim", config_dir)[name].resolve()
    if "site-packages" in path.parts:
        return

    def git(*arguments: str) -> bool:
        done = subprocess.run(
            ["git", "-C", str(path.parent), *arguments],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    tracked = git("ls-files", "--error-unmatch", path.name)
    if not tracked or not git("diff", "--quiet", "HEAD", "--", path.name):
        raise RequestError(
            f"{path} is not committed as it stands; a full check is of a registration "
            "that was fixed before its runs: commit it, or use --budget quick"
        )


def _kept(claim: Claim, name: str, design: Design, budget: BudgetName) -> Design | None:
    """What `budget` keeps of a design; None where it leaves it out."""
    if budget == "full":
        return design
    less = claim.quick.get(name)
    cells = design.all_cells() if less is None else less.cells
    if cells == []:
        return None
    overrides = "" if less is None else less.overrides
    if budget == "smoke":
        primary = [c for c in design.contrasts if c.primary] or design.contrasts
        wanted = list(claims.weights_of(primary[0], design))[:2]
        cells, overrides = wanted, f"{overrides} budget=smoke evaluations=1"
    trained = set(cells if cells is not None else design.all_cells())
    contrasts = [
        contrast
        for contrast in design.contrasts
        if set(claims.weights_of(contrast, design)) <= trained
    ]
    return design.model_copy(
        update={
            "cells": [cell for cell in design.all_cells() if cell in trained],
            "contrasts": contrasts,
            "crossovers": [] if budget == "smoke" else design.crossovers,
            "common": f"{design.common} {overrides}".strip(),
        }
    )


def _seeds(design: Design, budget: BudgetName) -> int:
    return {"smoke": 1, "quick": QUICK_SEEDS, "full": design.seeds}[budget]


def _finding(name: str) -> tuple[float, float | None, str]:
    found = theorems.check(name)
    return found.deviation, found.control, found.detail


@dataclass
class _Trial:
    """The runs of some designs: composed, done, and looked up by what they are for."""

    designs: Mapping[str, Design]
    request: Request
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._compose = Composer(self.request.config_dir)
        for name, design in self.designs.items():
            first = {
                cell: self._config(design, cell, design.rates[0], 0)
                for cell in design.all_cells()
            }
            reasons = incompatible({run_id(c): c for c in first.values()})
            self.skipped[name] = {
                cell: reasons[key]
                for cell, config in first.items()
                if (key := run_id(config)) in reasons
            }

    def rates(self) -> dict[str, dict[str, Rate]]:
        """The rate of every cell of every design: chosen, or as it was frozen."""
        if self.request.budget != "full":
            return {name: self._frozen(name) for name in self.designs}
        tried = {
            name: {cell: sorted(design.rates) for cell in self._working(name)}
            for name, design in self.designs.items()
        }
        extended = {name: dict.fromkeys(tried[name], 0) for name in tried}
        while True:
            seen = self._tune(tried)
            chosen = {
                name: {
                    cell: _choose(self.designs[name], seen[name][cell])
                    for cell in tried[name]
                }
                for name in tried
            }
            further = False
            for name, cells in chosen.items():
                limit = self.designs[name].extend
                for cell, rate in cells.items():
                    known = tried[name][cell]
                    if not rate.at_edge or extended[name][cell] >= limit:
                        continue
                    low = rate.lr == known[0]
                    new = known[0] / 2 if low else known[-1] * 2
                    tried[name][cell] = sorted([*known, new])
                    extended[name][cell] += 1
                    further = True
            if not further:
                return {name: chosen[name] | self._unworkable(name) for name in chosen}

    def cells(
        self, rates: Mapping[str, Mapping[str, Rate]]
    ) -> dict[str, dict[str, dict[int, RunRecord]]]:
        """Design -> cell -> seed -> record, of the test seeds at the cells' rates."""
        wanted = {
            (name, cell, seed): self._config(
                design, cell, rates[name][cell].lr, seed, design.probes
            )
            for name, design in self.designs.items()
            for cell in self._working(name)
            for seed in range(_seeds(design, self.request.budget))
        }
        found = self._do("test seeds", wanted.values())
        cells: dict[str, dict[str, dict[int, RunRecord]]] = {
            name: {cell: {} for cell in self._working(name)} for name in self.designs
        }
        for (name, cell, seed), config in wanted.items():
            if finished := found.get(run_id(config)):
                cells[name][cell][seed] = finished
        return cells

    def _tune(
        self, tried: Mapping[str, Mapping[str, Sequence[float]]]
    ) -> dict[str, dict[str, dict[float, list[RunRecord]]]]:
        wanted = {
            (name, cell, lr, seed): self._config(
                self.designs[name], cell, lr, FIRST_TUNING_SEED + seed
            )
            for name, cells in tried.items()
            for cell, rates in cells.items()
            if len(self.designs[name].rates) > 1
            for lr in rates
            for seed in range(self.designs[name].tuning_seeds)
        }
        found = self._do("rates", wanted.values())
        seen: dict[str, dict[str, dict[float, list[RunRecord]]]] = {
            name: {cell: {lr: [] for lr in rates} for cell, rates in cells.items()}
            for name, cells in tried.items()
        }
        for (name, cell, lr, _), config in wanted.items():
            if finished := found.get(run_id(config)):
                seen[name][cell][lr].append(finished)
        return seen

    def _do(self, what: str, configs: Iterable[RunConfig]) -> dict[str, RunRecord]:
        """Finish all of `configs`; their records by id, those that failed left out."""
        request = self.request
        plan = Plan({run_id(c): c for c in configs}, {}, request.engine)

        def look() -> Any:
            return standing(
                plan, request.results, request.modules, redo_stale=request.redo_stale
            )

        now = look()
        if now.missing:
            workers = request.engine.workers or cores()
            seen = now.finished.values() or record.all_records(request.results)[0]
            run_all(
                now.missing,
                request.results,
                request.engine,
                Forecast(seen, now.missing, workers),
                request.observe(what),
                modules=request.modules,
                redo_stale=request.redo_stale,
            )
            now = look()
        finished: dict[str, RunRecord] = now.finished
        return finished

    def _config(
        self,
        design: Design,
        cell: str,
        lr: float,
        seed: int,
        probes: Sequence[str] = (),
    ) -> RunConfig:
        lines = [*words(design.overrides(cell)), f"lr={lr!r}", f"seed={seed}"]
        lines += ["tracker=none", f"probes=[{','.join(probes)}]"]
        latest = {line.partition("=")[0]: line for line in lines}
        config_dir = self.request.config_dir
        try:
            parsed = [parse(line, config_dir) for line in latest.values()]
            return resolve(self._compose(parsed))
        except RequestError as error:
            raise RequestError(f"{cell}: {error}") from None

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


def _choose(design: Design, seen: Mapping[float, Sequence[RunRecord]]) -> Rate:
    """The rate with the best mean validation metric; the middle one where none is."""
    validation: dict[float, float | None] = {}
    for lr, records in sorted(seen.items()):
        values = [claims.metric_of(each, design.validation) for each in records]
        finite = [value for value in values if value is not None]
        whole = len(finite) == design.tuning_seeds
        validation[lr] = statistics.mean(finite) if whole else None
    rates = list(validation)
    scores = {lr: value for lr, value in validation.items() if value is not None}
    if not scores:
        lr = rates[len(rates) // 2]
        best, good = lr, []
    else:
        best = min(scores, key=lambda lr: scores[lr])
        margin = max(contrast.margin for contrast in design.contrasts)
        good = [lr for lr, value in scores.items() if value <= scores[best] + margin]
    return Rate(
        lr=best,
        validation={f"{lr:g}": value for lr, value in validation.items()},
        good=good,
        at_edge=len(scores) > 1 and best in {rates[0], rates[-1]},
        frozen=False,
    )


def _caveats(
    request: Request,
    records: Sequence[RunRecord],
    rates: Mapping[str, Mapping[str, Rate]],
) -> list[str]:
    caveats = []
    if request.budget != "full":
        all_rates = [rate for cells in rates.values() for rate in cells.values()]
        frozen = sum(rate.frozen for rate in all_rates)
        caveats.append(
            f"budget {request.budget}: learning rates are those of a full check for "
            f"{frozen} of {len(all_rates)} cells, the middle of the grid for the rest"
        )
    stale = sum(
        not comes_from_this_code(each.environment, request.modules) for each in records
    )
    if stale:
        caveats.append(f"{stale} of {len(records)} runs come from other code than this")
    return caveats


def write_verdict(verdict: Verdict, results: Path, folder: Path) -> Path:
    """Write the verdict, and of a full check the records it rests on, to `folder`.

    Raises NormbenchError where that is not possible.
    """
    full = verdict.budget == "full"
    path = folder / ("verdict.json" if full else f"verdict.{verdict.budget}.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if full:
            found = (
                record.read(record.run_folder(results, i)) for i in verdict.run_ids
            )
            kept = [each for each in found if each is not None]
            record.write_compact(folder / "records.jsonl.gz", kept)
        record.write_atomically(path, verdict.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise NormbenchError(f"{path} cannot be written: {error.strerror}") from None
    return path
