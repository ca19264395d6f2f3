"""Checks with looks, with made-up runs."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks_made import ENGINE, Runner, checked
from claims_made import TINY
from sweeps_made import RecordingObserver

from normbench.claims.check import check, prepare
from normbench.claims.trial import Request
from normbench.config.schema import RunConfig
from normbench.records.store import Results
from normbench.sweeps import round
from normbench.sweeps.round import Rounds
from normbench.verdicts.registration import Claim
from normbench.verdicts.verdict import ContrastVerdict, Verdict

NOISE = np.random.default_rng(3).normal(0, 0.02, (2, 64))


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    made.metrics = metrics
    monkeypatch.setattr(round, "run_all", made)
    return made


def metrics(config: RunConfig) -> dict[str, float | None]:
    """Return made-up errors: batch is clearly the best, the others are alike."""
    base = {"batch": 0.1, "group": 0.2, "instance": 0.2}[config.norm.name]
    noise = NOISE[int(config.norm.name == "instance"), config.seed % 64]
    return {f"{s}/error": base + float(noise) for s in ("train", "val", "test")}


def claim(design: dict[str, Any] | None = None, **other: dict[str, Any]) -> Claim:
    """Return a claim of three arms, of which one is open, and of `other` designs."""
    plain = copy.deepcopy(TINY)
    digits = plain["outcomes"]["digits"]
    (contrast,) = digits["contrasts"]
    digits |= {
        "arms": {"a": "norm=batch", "b": "norm=group", "c": "norm=instance"},
        "cells": ["a@2", "b@32", "c@2"],
        "rates": [0.1],
        "looks": [8, 16, 32],
        "contrasts": [
            contrast,
            contrast | {"name": "c against b", "weights": {"c@2": 1.0, "b@32": -1.0}},
        ],
    } | (design or {})
    for name, changes in other.items():
        plain["outcomes"][name] = digits | {"looks": None} | changes
    return Claim(**plain)


def contrasts(verdict: Verdict) -> list[ContrastVerdict]:
    return [c for design in verdict.outcomes for c in design.contrasts]


def seeds_run(runner: Runner) -> dict[str, list[int]]:
    """Return norm -> number of its runs, for each round."""
    return {
        norm: [
            sum(config.norm.name == norm for config in configs)
            for configs in runner.rounds
        ]
        for norm in ("batch", "group", "instance")
    }


def test_a_settled_contrast_is_frozen_and_its_cell_stops(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(claim(), tmp_path)
    clear, open_ = contrasts(verdict)
    assert (clear.decision, clear.n, clear.looks) == ("confirmed", 8, [8])
    assert clear.stopped_early
    assert (open_.decision, open_.n) == ("not decided", 32)
    assert (open_.looks, open_.planned) == ([8, 16, 32], 32)
    assert seeds_run(runner) == {
        "batch": [8, 0, 0],
        "group": [8, 8, 16],
        "instance": [8, 8, 16],
    }
    cells = {cell.cell: cell.n for cell in verdict.outcomes[0].cells}
    assert cells == {"a@2": 8, "b@32": 32, "c@2": 32}
    assert len(verdict.run_ids) == 8 + 2 * 32
    assert clear.p_adjusted is not None and clear.p_adjusted < 0.05


def test_a_check_ends_when_all_contrasts_are_settled(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(claim({"contrasts": TINY_CONTRASTS}), tmp_path)
    assert seeds_run(runner)["batch"] == [8]
    assert verdict.parts[0].headline == "holds"


TINY_CONTRASTS = TINY["outcomes"]["digits"]["contrasts"]


def test_records_of_later_seeds_change_nothing(runner: Runner, tmp_path: Path) -> None:
    alone = checked(claim(), tmp_path / "alone")
    checked(claim({"looks": None, "seeds": 40}), tmp_path / "more")
    runner.rounds.clear()
    again = checked(claim(), tmp_path / "more")
    assert runner.rounds == []
    assert again.outcomes == alone.outcomes
    assert again.run_ids == alone.run_ids


def test_rounds_are_called_by_their_look(runner: Runner, tmp_path: Path) -> None:
    titles: list[str] = []

    def observe(title: str, *_: object) -> RecordingObserver:
        titles.append(title)
        return RecordingObserver()

    for made, folder in ((claim(), "looks"), (claim({"looks": None}), "fixed")):
        rounds = Rounds(Results(tmp_path / folder), observe)
        check(made, prepare(made, Request(rounds, "full", ENGINE)), "")
    assert titles == [
        "check: seeds, look 1 of 3",
        "check: seeds, look 2 of 3",
        "check: seeds, look 3 of 3",
        "check: seeds",
    ]


def test_designs_with_fewer_looks_keep_their_last_judgement(
    runner: Runner, tmp_path: Path
) -> None:
    verdict = checked(claim(fixed={"seeds": 16}, two={"looks": [6, 12]}), tmp_path)
    by_design = {d.name: [c.n for c in d.contrasts] for d in verdict.outcomes}
    assert by_design == {"digits": [8, 32], "fixed": [16, 16], "two": [6, 12]}
    looks = {d.name: d.contrasts[1].looks for d in verdict.outcomes}
    assert looks == {"digits": [8, 16, 32], "fixed": [], "two": [6, 12]}
    primary = [c for c in contrasts(verdict) if c.primary]
    assert len(primary) == 6
    # Holm's method is over all six, whatever the look at which each was settled.
    smallest = min(primary, key=lambda c: 1.0 if c.p is None else c.p)
    assert smallest.p is not None
    assert smallest.p_adjusted == pytest.approx(6 * smallest.p)


def test_a_quick_check_has_one_look(runner: Runner, tmp_path: Path) -> None:
    verdict = checked(claim({"contrasts": TINY_CONTRASTS}), tmp_path, "quick")
    (contrast,) = contrasts(verdict)
    assert (contrast.n, contrast.looks, contrast.planned) == (6, [], None)
    smoke = checked(claim(), tmp_path, "smoke")
    assert smoke.parts[0].headline == "not tested"


def test_a_failed_run_stops_its_contrasts(runner: Runner, tmp_path: Path) -> None:
    runner.status = lambda c: (
        "failed" if (c.seed, c.norm.name) == (3, "instance") else "ok"
    )
    verdict = checked(claim(), tmp_path)
    assert seeds_run(runner)["instance"] == [8]
    assert contrasts(verdict)[1].because == "seeds 3 have no finite test/error"
    # The same command repeats the failed run and goes on.
    runner.status = lambda config: "ok"
    assert checked(claim(), tmp_path).outcomes[0].contrasts[1].n == 32
