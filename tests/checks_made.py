"""Checks of a tiny claim, whose runs are made up."""

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from claims_made import TINY, Plain
from records_made import A_RECORD
from sweeps_made import RecordingObserver

from normbench.claims.check import check, prepare
from normbench.claims.trial import Request, Trial
from normbench.cli.progress import SweepProgress
from normbench.config.schema import Engine, LocalEngine, RunConfig
from normbench.records.store import Results, RunWriter
from normbench.sweeps.engines.base import Work
from normbench.sweeps.round import Rounds
from normbench.training.environment import environment
from normbench.verdicts.counting import ModelCensus
from normbench.verdicts.registration import BudgetName, Claim, read_claim
from normbench.verdicts.verdict import Verdict

ENGINE = LocalEngine(name="local", workers=1, timeout=None)


def an_error(config: RunConfig) -> dict[str, float | None]:
    """Return made-up metrics: batch is better than group; .8 is the best rate."""
    error = 0.1 if config.norm.name == "batch" else 0.2
    error += 0.01 * abs(config.lr - 0.8) + 0.0001 * (config.seed % 7)
    return {f"{split}/error": error for split in ("train", "val", "test")}


class Runner:
    """Replaces `run_all`: keeps the configs of its rounds, writes made-up records."""

    def __init__(self) -> None:
        self.metrics = an_error
        self.changes: Plain = {}
        self.status: Callable[[RunConfig], str | None] = lambda config: "ok"
        self.rounds: list[list[RunConfig]] = []

    def __call__(self, work: Work, engine: Engine) -> None:
        self.rounds.append(list(work.runs.values()))
        for key, config in work.runs.items():
            status = self.status(config)
            if status is None:
                continue
            ok = status == "ok"
            made_up = {
                "run_id": key,
                "config": config,
                "environment": environment("cpu", (), config),
                "status": status,
                "metrics": self.metrics(config) if ok else {"test/error": None},
                "probes": {f"{probe}/x": 1.0 for probe in config.probes},
            }
            with RunWriter(work.results.folder, key) as writer:
                writer.begin(config)
                writer.finish(A_RECORD.model_copy(update=made_up | self.changes))

    def seeds(self, norm: str) -> Iterator[tuple[float, int]]:
        for config in chain.from_iterable(self.rounds):
            if config.norm.name == norm:
                yield config.lr, config.seed


def a_claim(**design: Any) -> Claim:
    plain = copy.deepcopy(TINY)
    plain["outcomes"]["digits"] |= {"cells": ["a@2", "b@32"], **design}
    return Claim(**plain)


def in_folder(folder: Path) -> Rounds:
    return Rounds(Results(folder), lambda *_: RecordingObserver())


def checked(
    claim: Claim,
    folder: Path,
    budget: BudgetName = "full",
    arm: str | None = None,
    first_seed: int = 0,
    counted: ModelCensus | None = None,
) -> Verdict:
    rounds = in_folder(folder / "runs")
    request = Request(rounds, budget, ENGINE, first_seed=first_seed)
    command = "normbench claim check tiny"
    return check(claim, prepare(claim, request, arm), command, counted=counted)


def no_runs(*_: object) -> SweepProgress:
    raise AssertionError("nothing is run here")


def planned(name: str, budget: BudgetName, config_dir: Path | None = None) -> Trial:
    engine = LocalEngine(name="local", workers=1, timeout=None)
    request = Request(
        Rounds(Results(Path("nowhere")), no_runs), budget, engine, config_dir=config_dir
    )
    return prepare(read_claim(name, config_dir), request)
