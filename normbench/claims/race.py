"""Rank any number of arms in a given time: tune and drop arms, then test the rest.

Phase 1 tunes learning rates on tuning seeds and drops arms that are clearly worse
(`halving`). It takes at most a third of the time, but always has the first tuning seed.
Phase 2 gives the other arms test seeds, look by look, until the best arm is told from
all others, or until the time is over (`verdicts.standings`). The same command continues
and uses finished runs. The looks depend on the number of seeds and not on the time, and
phase 2 begins by fixing the rates (`kept`). So a continued race is judged as if it had
not been interrupted.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from statistics import mean
from typing import Literal

from normbench.claims.check import run_caveats
from normbench.claims.halving import Try, Tuned, tune, tuning_caveats
from normbench.claims.kept import keep, kept_file, read_kept
from normbench.claims.trial import Trial, require_metric
from normbench.config.identity import run_id
from normbench.config.rates import peak_lr
from normbench.config.schema import RunConfig, RunRecord
from normbench.data.base import REGISTRY as DATA
from normbench.errors import RequestError
from normbench.sweeps.engines.base import parallel
from normbench.sweeps.round import Rounds
from normbench.verdicts import judging
from normbench.verdicts.design import arm_of
from normbench.verdicts.metrics import metric_of
from normbench.verdicts.placing import Race, provisional, ranked, seeds_to_settle
from normbench.verdicts.ranking import (
    End,
    Further,
    LeftOut,
    RankedArm,
    Ranking,
    Spent,
    TunedArm,
)
from normbench.verdicts.registration import Claim
from normbench.verdicts.seeds import FIRST_TUNING_SEED
from normbench.verdicts.standings import Rules, Runs, Standings, judge

TUNING_SHARE = 1 / 3
"""The share of the time after which phase 1 ends, except in its first round."""


def race(
    claim: Claim, trial: Trial, rounds: Rounds, *, minutes: float, command: str
) -> Ranking:
    """Do runs for `minutes`, and return the ranking of the arms of `claim`.

    `claim` is made by `comparison` and has one level; `trial` has its design and
    does its runs in `rounds`. `command` is the command line that continues the race.
    Raises RequestError for several levels, and if fewer than two arms fit their
    networks.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    course = _Course(trial, rounds, 60 * minutes)
    course.require_arms()
    file = kept_file(claim, rounds.results)
    with course.phase("tuning"):
        kept = read_kept(file)
        tuned = course.tune() if kept is None else kept
    if kept is not None and kept.keys() != set(course.arms):
        raise RequestError(f"{file} has other arms than this race; remove it")
    dropped = {arm for arm, t in tuned.items() if t.dropped}
    design = course.design
    rules = Rules(
        arms=tuple(arm for arm in course.arms if arm not in dropped),
        looks=tuple(design.planned_looks()),
        spending=design.spending,
        alpha=claim.alpha,
        margin=design.contrasts[0].margin,
        gate=course.sign * design.gate.below,
    )
    entered = Race(
        rules,
        rates={arm: t.lr for arm, t in tuned.items()},
        peak_lrs={arm: course.peak_lr(arm, t.lr) for arm, t in tuned.items()},
        runs={arm: Runs([], []) for arm in rules.arms},
        sign=course.sign,
    )
    standings = judge(rules, entered.runs)
    # If the time ended in the first round of tuning, an arm has no rate.
    if len(tuned) == len(course.arms):
        with course.phase("test"):
            standings = course.test(
                entered, begin=lambda: keep(tuned, file) if kept is None else None
            )
    caveats = tuning_caveats(tuned, kept=file.exists())
    return course.ranking(entered, standings, tuned, caveats, started, command)


class _Course:
    """The runs of a race, and what they cost.

    `sign` is -1 if a higher metric is better, otherwise 1; `sign` times the metric is a
    cost. `arms` are the arms that fit their networks. `seconds` is the whole time, and
    `end` and `tuning_end` are times of `time.monotonic`.
    """

    def __init__(self, trial: Trial, rounds: Rounds, seconds: float) -> None:
        self.trial, self.rounds = trial, rounds
        begin = time.monotonic()
        self.seconds = seconds
        self.end, self.tuning_end = begin + seconds, begin + seconds * TUNING_SHARE
        ((self.name, self.design),) = trial.designs.items()
        self.sign = -1 if self.design.contrasts[0].says == "greater" else 1
        self.skipped = {arm_of(c): why for c, why in trial.skipped[self.name].items()}
        self.arms = [arm for arm in self.design.arms if arm not in self.skipped]
        self.spent: list[Spent] = []
        self._configs: dict[Try, RunConfig] = {}

    def require_arms(self) -> None:
        """Raise RequestError for several levels, or for fewer than two arms."""
        levels = list(self.design.levels)
        if len(levels) > 1:
            raise RequestError(
                f"--minutes ranks arms at one level, not at {len(levels)} "
                f"({', '.join(levels)}); use one command for each level"
            )
        if len(self.arms) < 2:
            reasons = "; ".join(f"{arm}: {why}" for arm, why in self.skipped.items())
            raise RequestError(f"fewer than two arms fit their networks ({reasons})")

    @contextmanager
    def phase(self, name: Literal["tuning", "test"]) -> Iterator[None]:
        """Record what the rounds in the block cost."""
        begin = time.monotonic()
        records, trained = self.trial.records, self.rounds.trained
        known, trained_before = set(records), set(trained)
        yield
        done = trained - trained_before
        self.spent.append(
            Spent(
                phase=name,
                runs=len(done),
                found=len(records.keys() - known - done),
                core_seconds=sum(
                    records[key].seconds.total * records[key].environment.threads
                    for key in done
                ),
                minutes=(time.monotonic() - begin) / 60,
            )
        )

    def peak_lr(self, arm: str, lr: float) -> float:
        """Return the peak learning rate at `lr`, which a rule may scale."""
        return peak_lr(self._config(arm, lr, seed=0))

    def tune(self) -> dict[str, Tuned]:
        """Do phase 1. A single rate is not tuned; then no arm is dropped."""
        rates = set(self.design.rates)
        if len(rates) == 1:
            (lr,) = rates
            return dict.fromkeys(self.arms, Tuned(lr=lr, tried={}))
        return tune(
            self.arms,
            rates,
            self._measure,
            extend=self.design.extend,
            margin=self.design.contrasts[0].margin,
        )

    def test(self, entered: Race, begin: Callable[[], None]) -> Standings:
        """Do phase 2: fill the runs look by look, and return the last standings.

        `begin` is called before the first look. A look is not begun if it takes longer
        than the rest of the time, as far as finished runs tell, but not longer than the
        whole time of the next command.
        """
        rules, rates = entered.rules, entered.rates
        metrics = (self.design.contrasts[0].metric, self.design.gate.metric)
        self.rounds.deadline = self.end
        while (n := (standings := judge(rules, entered.runs)).next_look) is not None:
            configs = {
                (arm, seed): self._config(arm, rates[arm], seed)
                for seed in range(n)  # all arms have the first seeds if the time ends
                for arm in standings.running
            }
            expected = self._expected(configs.values()) or 0.0
            if (rest := self.end - time.monotonic()) < expected <= self.seconds:
                break
            if n == rules.looks[0]:
                begin()
            number = rules.looks.index(n) + 1
            title = f"test seeds, look {number} of {len(rules.looks)}"
            if expected > rest:
                title += f" (about {expected / 60:.0f} min, with {rest / 60:.0f} left)"
            records = self.trial.do(title, configs.values())
            for metric in metrics:
                require_metric(metric, [*records.values()])
            for arm in standings.running:
                seeds = (records.get(run_id(configs[arm, seed])) for seed in range(n))
                of_arm = [*takewhile(bool, seeds)]
                costs, gate = (
                    [self._cost(record, metric) for record in of_arm if record]
                    for metric in metrics
                )
                entered.runs[arm] = Runs(costs, gate)
            if len(records) < len(configs):  # the time is over
                break
        return standings

    def ranking(
        self,
        entered: Race,
        standings: Standings,
        tuned: Mapping[str, Tuned],
        caveats: Sequence[str],
        started: str,
        command: str,
    ) -> Ranking:
        """Return the result from the last standings of the arms that `entered`."""
        rules, records = entered.rules, self.trial.records
        arms = [
            arm.model_copy(
                update={"gate_mean": self._mean(entered.runs[arm.arm].gate[: arm.n])}
            )
            for arm in ranked(entered, standings)
        ]
        environment = judging.environment_of(
            records.values(), {name: DATA.get(name).packages for name in DATA.names()}
        )
        ended: End = "settled"
        if standings.next_look is not None:
            ended = "time"
        elif standings.open:
            ended = "last look"
        left_out = [LeftOut(arm=a, reason=why) for a, why in standings.out.items()]
        left_out += [
            LeftOut(arm=arm, reason=t.dropped) for arm, t in tuned.items() if t.dropped
        ]
        left_out += [
            LeftOut(arm=a, reason=f"skipped, {why}") for a, why in self.skipped.items()
        ]
        return Ranking(
            metric=self.design.contrasts[0].metric,
            maximized=self.sign == -1,
            margin=rules.margin,
            alpha=rules.alpha,
            spending=rules.spending,
            looks=list(rules.looks),
            seen=list(standings.seen),
            ended=ended,
            arms=arms,
            provisional=[] if standings.seen else provisional(entered),
            left_out=left_out,
            validation=self.design.validation,
            tuning=[self._tuned_arm(arm, t) for arm, t in tuned.items() if t.tried],
            spent=self.spent,
            further=self._further(entered, standings, arms),
            caveats=[
                *judging.mixtures(environment),
                *caveats,
                *run_caveats(self.trial),
            ],
            run_ids=sorted(records),
            command=command,
            started=started,
            environment=environment,
            gate=self.design.gate.metric,
            budget=self._config(arms[0].arm, arms[0].lr, 0).budget if arms else None,
        )

    def _measure(self, tries: Sequence[Try]) -> dict[Try, float | None]:
        """Do tuning runs and return their costs; see `halving.Measure`.

        Without the runs of the first round, an arm has no rate. So this round has the
        whole time. Another round begins only if the time suffices for all its runs.
        """
        is_first = not self.trial.records
        self.rounds.deadline = self.end if is_first else self.tuning_end
        configs = {
            (arm, lr, seed): self._config(arm, lr, FIRST_TUNING_SEED + seed)
            for arm, lr, seed in tries
        }
        if not is_first and not self._has_time(configs.values()):
            return {}
        seeds = 1 + max(seed for *_, seed in tries)
        title = f"rates, {seeds} tuning seed{'s' if seeds > 1 else ''}"
        records = self.trial.do(title, configs.values())
        require_metric(self.design.validation, [*records.values()])
        return {
            key: self._cost(records[run_id(config)], self.design.validation)
            for key, config in configs.items()
            if run_id(config) in records
        }

    def _config(self, arm: str, lr: float, seed: int) -> RunConfig:
        key = (arm, lr, seed)
        if key not in self._configs:  # composing takes milliseconds
            (cell,) = (c for c in self.design.all_cells() if arm_of(c) == arm)
            self._configs[key] = self.trial.config(
                self.name, cell, lr, seed, tuning=seed >= FIRST_TUNING_SEED
            )
        return self._configs[key]

    def _has_time(self, configs: Iterable[RunConfig]) -> bool:
        """Return whether the missing runs of `configs` are expected to end in time."""
        seconds, deadline = self._expected(configs), self.rounds.deadline
        assert deadline is not None
        return seconds is None or seconds <= max(0.0, deadline - time.monotonic())

    def _expected(self, configs: Iterable[RunConfig]) -> float | None:
        """Return the expected seconds of the missing runs; None if unknown."""
        return self.rounds.seconds(self.trial.plan(configs))

    def _cost(self, record: RunRecord, metric: str) -> float | None:
        value = metric_of(record, metric)
        return None if value is None else self.sign * value

    def _mean(self, costs: Sequence[float | None]) -> float | None:
        known = [cost for cost in costs if cost is not None]
        return self.sign * mean(known) if len(known) == len(costs) else None

    def _tuned_arm(self, arm: str, tuned: Tuned) -> TunedArm:
        return TunedArm(
            arm=arm,
            lr=tuned.lr,
            at_edge=tuned.at_edge,
            validation={
                f"{lr:g}": None if cost is None else self.sign * cost
                for lr, (cost, _) in tuned.tried.items()
            },
            seeds={f"{lr:g}": seeds for lr, (_, seeds) in tuned.tried.items()},
        )

    def _further(
        self, entered: Race, standings: Standings, arms: Sequence[RankedArm]
    ) -> Further | None:
        """Return what would settle the open arms, or lead to the first look."""
        if standings.seen and not standings.open:
            return None
        finished = min(len(entered.runs[arm].costs) for arm in standings.running)
        seeds: int | None = entered.rules.looks[0] - finished
        if standings.seen:
            seeds = seeds_to_settle(arms, standings)
        minutes = None
        times = [record.seconds.total for record in self.trial.records.values()]
        if seeds is not None and times:
            runs = seeds * len(standings.running)
            minutes = runs * mean(times) / parallel(self.trial.request.engine) / 60
        return Further(arms=list(standings.running), seeds=seeds, minutes=minutes)
