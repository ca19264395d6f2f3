"""The registered claims: that they can be done, and that a wrong one says why."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from claims_made import TINY, Plain, put
from pydantic import ValidationError

from normbench.claims import census, theorems
from normbench.claims.check import cost, prepare
from normbench.claims.trial import Request, Trial, kept, seeds_of
from normbench.cli.progress import SweepProgress
from normbench.config.choices import choices, description
from normbench.config.schema import LocalEngine
from normbench.errors import RequestError
from normbench.probes.base import PROBES
from normbench.records.store import Results
from normbench.sweeps.round import Rounds
from normbench.verdicts.registration import (
    BUDGETS,
    BudgetName,
    Claim,
    read_claim,
    registration_hash,
)

NAMES = sorted(choices("claim"))


def no_runs(*_: object) -> SweepProgress:
    raise AssertionError("nothing is run here")


def trial(name: str, budget: BudgetName, config_dir: Path | None = None) -> Trial:
    engine = LocalEngine(name="local", workers=1, timeout=None)
    request = Request(
        Rounds(Results(Path("nowhere")), no_runs), budget, engine, config_dir=config_dir
    )
    return prepare(read_claim(name, config_dir), request)


def test_there_are_eight() -> None:
    assert len(NAMES) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_reads_and_its_theorems_and_probes_exist(name: str) -> None:
    claim = read_claim(name)
    assert claim.name == name
    assert description(choices("claim")[name])
    assert {each.check for each in claim.theorems} <= set(theorems.names())
    probes = {probe for design in claim.designs().values() for probe in design.probes}
    assert probes <= set(PROBES.names())
    assert claim.theorems
    assert claim.outcomes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "budget",
    [
        pytest.param(budget, marks=pytest.mark.slow if budget == "full" else [])
        for budget in BUDGETS
    ],
)
def test_every_cell_of_every_budget_composes_and_works(
    name: str, budget: BudgetName
) -> None:
    composed = trial(name, budget)
    assert composed.designs
    for design, skipped in composed.skipped.items():
        assert skipped == {}
        assert composed.designs[design].contrasts
    for design, each in composed.designs.items():
        for cell in each.all_cells():
            config = composed.config(design, cell, 0.1, 3)
            assert (config.lr, config.seed) == (0.1, 3)
            if budget == "smoke":
                assert config.budget.max_steps == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_cells_that_differ_are_different_runs(name: str) -> None:
    composed = trial(name, "full")
    for design, each in composed.designs.items():
        ids = [composed._first(design, cell)[0] for cell in each.all_cells()]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", NAMES)
def test_contrasts_compare_and_say_what_their_margins_mean(name: str) -> None:
    claim = read_claim(name)
    primary = [c for d in claim.designs().values() for c in d.contrasts if c.primary]
    assert primary
    for design in claim.designs().values():
        for contrast in design.contrasts:
            assert contrast.reason
            if contrast.weights and not contrast.metric.startswith(
                tuple(design.probes)
            ):
                assert sum(contrast.weights.values()) == pytest.approx(0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", ["smoke", "quick"])
def test_a_smaller_budget_is_a_part_of_the_full_check(
    name: str, budget: BudgetName
) -> None:
    claim = read_claim(name)
    less, full = kept(claim, budget), kept(claim, "full")
    assert less.keys() <= full.keys()
    for key, design in less.items():
        assert set(design.all_cells()) <= set(full[key].all_cells())
        names = {contrast.name for contrast in full[key].contrasts}
        assert {contrast.name for contrast in design.contrasts} <= names
        for contrast in design.contrasts:
            assert set(contrast.weights or {}) <= set(design.all_cells())
    primary = [c for d in less.values() for c in d.contrasts if c.primary]
    assert primary
    assert cost(claim, budget).core_seconds < cost(claim, "full").core_seconds


def test_the_budgets_hold_on_two_cores() -> None:
    """The plan, as registered: full is four hours, a claim an hour and a half."""
    minutes = {
        budget: {
            name: cost(read_claim(name), budget).core_seconds / 2 / 60 for name in NAMES
        }
        for budget in BUDGETS
    }
    assert sum(minutes["full"].values()) < 240
    assert max(minutes["full"].values()) < 90
    assert sum(minutes["quick"].values()) < 45
    assert sum(minutes["smoke"].values()) < 3


def changed(change: Callable[[Plain, Plain, Plain], object]) -> Plain:
    """TINY after a change of (the claim, its design, its contrast)."""
    plain = copy.deepcopy(TINY)
    design = plain["outcomes"]["digits"]
    change(plain, design, design["contrasts"][0])
    return plain


WRONG: dict[str, tuple[Callable[[Plain, Plain, Plain], object], str]] = {
    "unknown arm": (lambda p, d, c: c["weights"].update({"q@2": 1.0}), "q@2"),
    "unknown level": (lambda p, d, c: c["weights"].update({"a@3": 1.0}), "a@3"),
    "not trained": (lambda p, d, c: c["weights"].update({"b@2": 1.0}), "b@2"),
    "two kinds": (lambda p, d, c: c.update(slope="a"), "either weights or a slope"),
    "no kind": (lambda p, d, c: c.pop("weights"), "either weights or a slope"),
    "no weights": (lambda p, d, c: c.update(weights={}), "weights"),
    "a weight of 0": (lambda p, d, c: c["weights"].update({"a@2": 0.0}), "0"),
    "no margin": (lambda p, d, c: c.pop("margin"), "margin is missing"),
    "margin 0": (lambda p, d, c: c.update(margin=0.0), "margin=0.0"),
    "no reason": (lambda p, d, c: c.pop("reason"), "reason is missing"),
    "says": (lambda p, d, c: c.update(says="better"), "says='better'"),
    "metric": (lambda p, d, c: c.update(metric="tset/error"), "did you mean 'test'"),
    "no split": (lambda p, d, c: c.update(metric="error"), "SPLIT/METRIC"),
    "probe": (lambda p, d, c: c.update(metric="words/x"), "PROBE/QUANTITY"),
    "gate": (lambda p, d, c: d["gate"].update(metric="tran/error"), "train"),
    "peeking": (lambda p, d, c: d.update(validation="test/error"), "val/error"),
    "one level": (
        lambda p, d, c: (c.pop("weights"), c.update(slope="b")),
        "two levels of b",
    ),
    "five seeds": (lambda p, d, c: d.update(seeds=5), "seeds=5"),
    "no rates": (lambda p, d, c: d.update(rates=[]), "rates"),
    "key": (lambda p, d, c: d.update(sedes=8), "sedes"),
    "twice": (lambda p, d, c: d["contrasts"].append(c), "2 contrasts"),
    "no confounds": (lambda p, d, c: p.update(confounds=[]), "confounds"),
    "quick": (lambda p, d, c: p["quick"].update(x={}), "there is no 'x'"),
    "quick cell": (
        lambda p, d, c: p["quick"]["digits"].update(cells=["b@2"]),
        "b@2 is not trained",
    ),
    "an @": (lambda p, d, c: d["arms"].update({"a@b": ""}), "'a@b' has an @"),
    "another name": (lambda p, d, c: p.update(name="other"), "name it 'tiny'"),
    "crossover": (
        lambda p, d, c: d.update(
            crossovers=[
                {"name": "x", "metric": "test/error", "above": "a", "below": "q"}
            ]
        ),
        "no arm 'q'",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_yaml_is_refused_with_what_is_wrong(wrong: str, tmp_path: Path) -> None:
    change, told = WRONG[wrong]
    put(changed(change), tmp_path)
    with pytest.raises(RequestError) as refused:
        read_claim("tiny", tmp_path)
    message = str(refused.value)
    assert told in message
    assert "tiny.yaml" in message
    assert len(message.splitlines()) <= 4
    assert len(message) < 500


NOT_DONE: dict[str, tuple[Callable[[Plain, Plain, Plain], object], str]] = {
    "norm": (lambda p, d, c: d["arms"].update(a="norm=bacth"), "batch"),
    "key": (
        lambda p, d, c: d["arms"].update(a="norm=batch norm.mometum=1"),
        "momentum",
    ),
    "sweep": (lambda p, d, c: d["arms"].update(a="norm=batch,group"), "several values"),
    "rate": (lambda p, d, c: d["arms"].update(a="norm=batch lr=1"), "lr=1 cannot"),
    "seed": (lambda p, d, c: d.update(common="task=cnn seed=1"), "seed=1 cannot"),
    "theorem": (lambda p, d, c: p["theorems"][0].update(check="samples"), "samples"),
    "probe": (lambda p, d, c: d.update(probes=["nothing"]), "probes=nothing"),
}


@pytest.mark.parametrize("wrong", NOT_DONE)
def test_what_cannot_be_done_is_refused_before_any_run(
    wrong: str, tmp_path: Path
) -> None:
    change, told = NOT_DONE[wrong]
    put(changed(change), tmp_path)
    with pytest.raises(RequestError, match=told):
        trial("tiny", "full", tmp_path)


@pytest.mark.parametrize("content", ["", "- a", "a: [", "1: 2", "\x00"])
def test_what_is_no_claim_at_all_is_refused(content: str, tmp_path: Path) -> None:
    put({}, tmp_path).joinpath("claim", "tiny.yaml").write_text(content)
    with pytest.raises(RequestError, match=r"tiny\.yaml"):
        read_claim("tiny", tmp_path)


def test_an_unknown_claim_has_close_matches() -> None:
    with pytest.raises(RequestError, match="did you mean 'batch-default'"):
        read_claim("batch-defualt")


def leaves(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = (
        plain.items()
        if isinstance(plain, dict)
        else enumerate(plain)
        if isinstance(plain, list)
        else ()
    )
    for key, value in items:
        yield from leaves(value, (*path, key))
    if not isinstance(plain, dict | list):
        yield path


def other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value} or so"
    return 1.0


def test_the_hash_changes_with_anything_that_is_said() -> None:
    claim = read_claim("batch-size-dependence")
    plain = claim.model_dump(mode="json")
    seen, tried = {registration_hash(claim)}, 0
    for path in leaves(plain):
        turned = copy.deepcopy(plain)
        section = turned
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = other(section[path[-1]])
        try:
            seen.add(registration_hash(Claim(**turned)))
        except ValidationError:  # the name of a cell, say, that is then no cell
            continue
        tried += 1
    assert tried > 100
    assert len(seen) == tried + 1


def test_the_hash_is_of_what_is_said_and_not_of_how(tmp_path: Path) -> None:
    put(TINY, tmp_path)
    before = registration_hash(read_claim("tiny", tmp_path))
    file = tmp_path / "claim" / "tiny.yaml"
    turned = dict(reversed(list(TINY.items())))
    turned["alpha"] = 0.05
    file.write_text("# a comment\n" + yaml.safe_dump(turned))
    assert registration_hash(read_claim("tiny", tmp_path)) == before


def test_an_override_of_a_budget_wins_over_those_of_cells(tmp_path: Path) -> None:
    def change(p: Plain, d: Plain, c: Plain) -> None:
        d["levels"]["2"] += " budget.max_steps=500"
        p["quick"]["digits"]["overrides"] = "budget.max_steps=50"

    put(changed(change), tmp_path)
    steps = {
        budget: trial("tiny", budget, tmp_path)
        .config("digits", "a@2", 0.1, 0)
        .budget.max_steps
        for budget in BUDGETS
    }
    assert steps == {"full": 500, "quick": 50, "smoke": 10}


def test_seeds_are_those_of_the_budget() -> None:
    design = read_claim("batch-size-dependence").outcomes["norm_batch"]
    assert [seeds_of(design, budget) for budget in BUDGETS] == [1, 6, 16]


def test_the_census_names_the_family_of_most_layers() -> None:
    from torch import nn

    batch, group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
    assert census.family(nn.Sequential(batch, nn.BatchNorm1d(4), group)) == "batch"
    assert census.family(nn.Linear(2, 2)) == "none"
