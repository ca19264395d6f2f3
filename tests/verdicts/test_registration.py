"""Registered claims can be checked; a wrong yaml gives a helpful error."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from census_made import a_rule
from checks_made import planned
from claims_made import TINY, Plain, put
from pydantic import ValidationError

from normbench.claims import theorems
from normbench.claims.budgets import looks_for
from normbench.claims.check import cost
from normbench.config.choices import choices, description
from normbench.errors import RequestError
from normbench.probes.base import PROBES
from normbench.verdicts.registration import (
    BUDGETS,
    Claim,
    read_claim,
    registration_hash,
)

NAMES = sorted(choices("claim"))


def test_every_claim_reads_and_names_theorems_and_probes_that_exist() -> None:
    assert NAMES
    for name in NAMES:
        claim = read_claim(name)
        assert description(choices("claim")[name]), name
        assert {t.check for t in claim.theorems} <= set(theorems.names()), name
        designs = claim.designs().values()
        probes = {probe for design in designs for probe in design.probes}
        assert probes <= set(PROBES.names()), name
        assert claim.theorems and claim.outcomes, name
        assert any(c.primary for design in designs for c in design.contrasts), name
        for design in designs:
            for contrast in design.contrasts:
                assert contrast.reason, (name, contrast.name)
                # A change is the difference of two metrics of one run.
                is_change = contrast.metric.endswith("_change")
                measured = is_change or contrast.metric.startswith((*design.probes,))
                if contrast.weights and not measured:
                    total = sum(contrast.weights.values())
                    assert total == pytest.approx(0), (name, contrast.name)


def changed(change: Callable[[Plain, Plain, Plain], object]) -> Plain:
    """TINY with a census rule after a change of (the claim, its design, a contrast)."""
    plain = copy.deepcopy(TINY)
    plain["census"] = [a_rule().model_dump(exclude_defaults=True)]
    design = plain["outcomes"]["digits"]
    change(plain, design, design["contrasts"][0])
    return plain


WRONG: dict[str, tuple[Callable[[Plain, Plain, Plain], object], str]] = {
    "unknown arm": (lambda p, d, c: c["weights"].update({"q@2": 1.0}), "q@2"),
    "unknown level": (lambda p, d, c: c["weights"].update({"a@3": 1.0}), "a@3"),
    "not trained": (lambda p, d, c: c["weights"].update({"b@2": 1.0}), "b@2"),
    "a wrong part": (lambda p, d, c: c.update(part="beter"), "did you mean 'better'"),
    "no part": (lambda p, d, c: c.pop("part"), "names the part"),
    "context": (lambda p, d, c: c.update(bears="context"), "context has no part"),
    "bears": (lambda p, d, c: c.update(bears="maybe"), "bears='maybe'"),
    "no parts": (lambda p, d, c: p.update(parts={}), "parts"),
    "scale": (lambda p, d, c: c.update(scale="log"), "scale='log'"),
    "also": (lambda p, d, c: c.update(also=["error"]), "SPLIT/METRIC"),
    "quick data": (
        lambda p, d, c: p["quick"]["digits"].update(data=["x"]),
        "no data set 'x'",
    ),
    "census": (
        lambda p, d, c: p.update(census=True),
        "census=True",
    ),
    "unit": (lambda p, d, c: p["census"][0].pop("unit"), "census.0.unit is missing"),
    "two rules": (
        lambda p, d, c: p["census"].append(p["census"][0]),
        "2 census rules",
    ),
    "a rule's part": (
        lambda p, d, c: p["census"][0].update(part="beter", bears="for"),
        "did you mean 'better'",
    ),
    "a design's name": (
        lambda p, d, c: p.update(mechanisms={"census": d}),
        "a design is called census",
    ),
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
        "no cell 'b@2'",
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


def test_the_error_of_a_wrong_yaml_names_the_fault(tmp_path: Path) -> None:
    for wrong, (change, expected) in WRONG.items():
        put(changed(change), tmp_path)
        with pytest.raises(RequestError) as refused:
            read_claim("tiny", tmp_path)
        message = str(refused.value)
        assert expected in message, wrong
        assert "tiny.yaml" in message, wrong
        assert len(message.splitlines()) <= 4 and len(message) < 500, wrong
    for content in ("", "- a", "a: [", "1: 2", "\x00"):
        put({}, tmp_path).joinpath("claim", "tiny.yaml").write_text(content)
        with pytest.raises(RequestError, match=r"tiny\.yaml"):
            read_claim("tiny", tmp_path)
    with pytest.raises(RequestError, match="did you mean 'batch-default'"):
        read_claim("batch-defualt")


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


def test_wrong_designs_are_refused_before_any_run(tmp_path: Path) -> None:
    for change, message in NOT_DONE.values():
        put(changed(change), tmp_path)
        with pytest.raises(RequestError, match=message):
            planned("tiny", "full", tmp_path)


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


def test_the_hash_changes_with_every_value() -> None:
    claim = read_claim("batch-size-dependence")
    plain = claim.model_dump(mode="json", exclude_unset=True)
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


def test_a_rule_changes_the_hash_and_an_empty_census_does_not() -> None:
    plain = copy.deepcopy(TINY)
    rules = [[], [a_rule()], [a_rule(unit="module")], [a_rule(), a_rule(name="other")]]
    hashes = [registration_hash(Claim(**plain | {"census": each})) for each in rules]
    assert hashes[0] == registration_hash(Claim(**plain))
    assert len(set(hashes)) == len(rules)


def test_the_hash_ignores_order_comments_and_defaults(tmp_path: Path) -> None:
    put(TINY, tmp_path)
    before = registration_hash(read_claim("tiny", tmp_path))
    file = tmp_path / "claim" / "tiny.yaml"
    turned = dict(reversed(list(TINY.items())))
    turned["alpha"] = 0.05
    file.write_text("# a comment\n" + yaml.safe_dump(turned))
    assert registration_hash(read_claim("tiny", tmp_path)) == before


def looking(**changes: Any) -> Plain:
    """Return the tiny claim with looks."""
    plain = copy.deepcopy(TINY)
    plain["outcomes"]["digits"] |= {"looks": [8, 16, 32], **changes}
    return plain


def test_a_design_with_looks_is_judged_at_each_of_them_in_a_full_check() -> None:
    claim = Claim(**looking())
    design = claim.outcomes["digits"]
    assert design.spending == "pocock"
    looks = [looks_for(design, budget) for budget in BUDGETS]
    assert looks == [(1,), (6,), (8, 16, 32)]
    full = cost(claim, "full")
    assert (full.first_runs, full.runs) == (3 * 2 * 8, 3 * 2 * 32)
    assert full.first_core_seconds < full.core_seconds
    quick = cost(claim, "quick")
    assert quick.first_runs == quick.runs
    hashes = {
        registration_hash(Claim(**plain))
        for plain in (TINY, looking(), looking(spending="kim_demets"))
    }
    assert len(hashes) == 3
    assert registration_hash(Claim(**looking(spending="pocock"))) in hashes
    again = Claim(**claim.model_dump(exclude_defaults=True))
    assert again == claim


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"looks": [8]}, "at least 2 items"),
        ({"looks": [*range(6, 27)]}, "at most 20 items"),
        ({"looks": [5, 8]}, r"\[5, 8\] must be increasing numbers of seeds, from 6"),
        ({"looks": [8, 1001]}, r"from 6 to 1000"),
        ({"looks": [8, 8, 16]}, "must be increasing"),
        ({"looks": [16, 8]}, "must be increasing"),
        ({"seeds": 32}, "seeds or looks, not both"),
        (
            {"looks": None, "spending": "kim_demets"},
            "spending: kim_demets divides alpha among looks",
        ),
        ({"spending": "obrien"}, "'pocock', 'obrien_fleming' or 'kim_demets'"),
    ],
)
def test_wrong_looks_are_named(changes: Plain, error: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=error):
        read_claim("tiny", put(looking(**changes), tmp_path))
