"""A sweep's plan: its runs, its errors, which runs are finished, and its forecast."""

import itertools
import random
from pathlib import Path
from typing import Any

import hydra
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from records_made import a_record, written

from normbench.config.choices import choices, config_root
from normbench.config.composition import Composer, compose, parse
from normbench.config.identity import run_id
from normbench.config.schema import RunRecord, Seconds
from normbench.errors import RequestError
from normbench.records.source import source_hash
from normbench.records.store import Results
from normbench.sweeps.forecast import Forecast
from normbench.sweeps.plan import Plan, Shard, make_plan, plan_state

SMALL = ["task=cnn", "data.size=14", "tracker=none"]


def names(plan: Plan) -> list[tuple[str, int, int]]:
    return [(c.norm.name, c.batch_size, c.seed) for c in plan.runs.values()]


def hydra_alone(overrides: list[str]) -> Any:
    with hydra.initialize_config_dir(str(config_root()), version_base="1.3"):
        composed = hydra.compose("config", overrides)
    return OmegaConf.to_container(composed, resolve=True)


def test_a_plan_is_the_product_of_all_values_the_last_varying_fastest() -> None:
    plan = make_plan([*SMALL, "norm=batch,group", "batch_size=2,8", "seed=range(0,3)"])
    assert names(plan) == list(itertools.product(("batch", "group"), (2, 8), (0, 1, 2)))
    assert all(key == run_id(config) for key, config in plan.runs.items())


def test_values_are_those_of_the_grammar_of_hydra() -> None:
    for text, values in (
        ("lr=0.1,0.2", [0.1, 0.2]),
        ("lr=choice(0.1,1)", [0.1, 1.0]),
        ("lr=range(0.1,0.35,0.1)", [0.1, 0.2, 0.30000000000000004]),
        ("lr=sort(0.2,0.1)", [0.1, 0.2]),
        ("lr=0.1", [0.1]),
    ):
        plan = make_plan([*SMALL, text])
        assert [config.lr for config in plan.runs.values()] == values, text


def test_a_glob_chooses_among_yaml_files() -> None:
    plan = make_plan([*SMALL, "norm=glob(batch*,exclude=batch_*)", "seed=1"])
    assert names(plan) == [("batch", 32, 1)]
    every = make_plan([*SMALL, "norm=glob(*)"])
    planned = {config.norm.name for config in every.runs.values()}
    assert planned | {"layer", "keep"} >= choices("norm").keys()
    assert {skip.config.norm.name for skip in every.skipped.values()} == {"keep"}


def test_a_list_is_one_value() -> None:
    styles = "data.styles=[brick,grass],[gravel]"
    plan = make_plan(["task=style", styles, "tracker=none", "norm=instance"])
    assert [config.data.options["styles"] for config in plan.runs.values()] == [
        ["brick", "grass"],
        ["gravel"],
    ]


def test_arms_are_a_union_of_grids_and_win_over_what_they_share() -> None:
    plan = make_plan(
        [*SMALL, "norm=layer", "batch_size=2,8"],
        ["norm=group norm.num_groups=2,4", "norm=batch batch_size=8"],
    )
    assert [
        (c.norm.name, c.norm.options.get("num_groups"), c.batch_size)
        for c in plan.runs.values()
    ] == [
        ("group", 2, 2),
        ("group", 4, 2),
        ("group", 2, 8),
        ("group", 4, 8),
        ("batch", None, 8),
    ]


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_values_are_laid_on_as_hydra_does(data: st.DataObject) -> None:
    cell = [
        data.draw(st.sampled_from(values))
        for values in (
            ["task=cnn", "task=transformer", "task=style"],
            ["norm=group", "norm=batch", "norm=layer"],
            ["norm.eps=1e-3", "norm.eps=2", "tracker=none"],
            ["optimizer=sgd", "optimizer=adamw", "budget=smoke"],
            ["optimizer.weight_decay=0", "clip=1.5", "clip=null"],
            ["lr=0.3", "lr=1", "lr_rule=none"],
            ["batch_size=8", "batch_size=16", "++seed=3"],
            ["seed=7", "budget.max_steps=5", "engine.workers=3"],
        )
    ]
    cell = data.draw(st.permutations(cell))
    assert shared_composer([parse(text) for text in cell]) == hydra_alone(cell)


shared_composer = Composer()


def test_a_yaml_that_interpolates_is_composed_by_hydra_each_time(
    tmp_path: Path,
) -> None:
    (tmp_path / "budget").mkdir()
    yaml = "epochs: ${seed}\nmax_steps: null\n"
    (tmp_path / "budget" / "seeded.yaml").write_text(yaml)
    plan = make_plan([*SMALL, "budget=seeded", "seed=range(1,4)"], config_dir=tmp_path)
    assert [config.budget.epochs for config in plan.runs.values()] == [1, 2, 3]


def test_equal_runs_are_planned_once_and_are_those_of_train() -> None:
    overrides = [*SMALL, "norm=group", "norm.num_groups=4", "batch_size=8"]
    assert list(make_plan(overrides).runs) == [run_id(compose(overrides))]
    assert len(make_plan([*SMALL, "norm=layer,layer_sample", "lr=0.1,1e-1"]).runs) == 1


def test_a_norm_that_cannot_work_is_skipped_with_the_reason() -> None:
    plan = make_plan([*SMALL, "norm=group", "norm.num_groups=4,5", "seed=0,1"])
    assert [c.norm.options["num_groups"] for c in plan.runs.values()] == [4, 4]
    assert len(plan.skipped) == 2
    assert all("norm.num_groups=5" in skip.reason for skip in plan.skipped.values())


def test_a_plan_with_one_wrong_run_is_refused_whole() -> None:
    for overrides, arms, words in (
        ("norm=batch,grop", [], ["norm=grop", "group"]),
        ("norm=glob(nothing*)", [], ["glob(nothing*)", "does not match any of"]),
        ("lr=glob(*)", [], ["glob", "yaml files"]),
        ("lr=interval(0,1)", [], ["interval", "range("]),
        ("seed=range(3,3)", [], ["seed=range(3,3)", "no values"]),
        ("seed=0,1,two", [], ["seed='two'", "integer"]),
        ("batch_size=2,100000", [], ["batch_size=100000", "at most"]),
        ("batch_size=8 norm_batch=2,3", [], ["norm_batch=3", "1, 2, 4, 8"]),
        ("norm=batch,group norm.num_groups=2,4", [], ["num_groups", "--arm"]),
        ("lrr=1,2", [], ["lrr is not a key", "lr"]),
        ("", ["norm='batch"], ["--arm", "quotation"]),
        ("", ["norm=batch", "norm=nope"], ["norm=nope"]),
        ("engine.workers=1,2", [], ["engine", "one value"]),
        ("engine.workers=0", [], ["engine.workers=0"]),
        ("seed=range(0,1000000000)", [], ["1,000,000 runs"]),
        ("seed=range(0,100000) lr=range(1,100)", [], ["1,000,000 runs"]),
    ):
        with pytest.raises(RequestError) as refused:
            make_plan([*SMALL, *overrides.split()], arms)
        missing = [word for word in words if word not in str(refused.value)]
        assert not missing, (overrides, str(refused.value))


def test_shares_are_disjoint_and_make_the_whole(plan: Plan) -> None:
    parts = [Shard.parse(f"{index}/3").of(plan).runs for index in range(3)]
    assert sorted(key for part in parts for key in part) == sorted(plan.runs)
    for index, part in enumerate(parts):
        assert all(int(key, 16) % 3 == index for key in part)
    assert Shard.parse("0/1").of(plan) == plan
    for text in ("3/3", "1", "a/b", "-1/3", "0/0", "1/2/3", ""):
        with pytest.raises(RequestError, match=r"--shard .* is not a share; write I/N"):
            Shard.parse(text)


@pytest.fixture
def plan() -> Plan:
    return make_plan([*SMALL, "seed=range(0,4)"])


def test_what_is_finished_is_not_missing(plan: Plan, tmp_path: Path) -> None:
    def leave(seed: int, status: str = "ok", code: str | None = None) -> str:
        record = a_record(*SMALL, f"seed={seed}", status=status)
        code = code or source_hash(record.config)
        ran_on = record.environment.model_copy(update={"source_hash": code})
        written(tmp_path, record.model_copy(update={"environment": ran_on}))
        return record.run_id

    ok, diverged, failed = leave(0), leave(1, "diverged"), leave(2, "failed")
    stale = leave(3, code="other")
    state = plan_state(plan, Results(tmp_path))
    assert state.finished.keys() == {ok, diverged, stale}
    assert state.missing.keys() == state.failed == {failed}
    assert state.stale == {stale}
    state = plan_state(plan, Results(tmp_path, redo_stale=True))
    assert state.missing.keys() == {failed, stale}
    state = plan_state(plan, Results(tmp_path), skip_failed=True)
    assert (state.missing, state.left.keys()) == ({}, {failed})


def took(seconds: float, *overrides: str, **changes: Any) -> RunRecord:
    parts = Seconds(setup=0.0, train=seconds, evaluate=0.0)
    return a_record(*SMALL, *overrides, seconds=parts, **changes)


def test_a_forecast_is_of_the_runs_most_like_those_that_are_missing() -> None:
    missing = make_plan([*SMALL, "batch_size=2", "seed=range(0,4)"]).runs
    assert Forecast([], missing, 2).seconds() is None
    far = took(10.0, "batch_size=32", "seed=9")
    near = took(3.0, "batch_size=2", "norm=group", "seed=9")
    same = took(2.0, "batch_size=2", "lr=0.3", "seed=9")
    assert Forecast([far], missing, 2).seconds() == 20.0
    assert Forecast([far, near], missing, 2).seconds() == 6.0
    assert Forecast([far, near, same], missing, 2).seconds() == 4.0
    failed = took(99.0, "batch_size=2", "seed=8", status="failed")
    assert Forecast([same, failed], missing, 2).seconds() == 4.0


def test_a_forecast_learns_while_the_sweep_goes_on() -> None:
    missing = make_plan([*SMALL, "batch_size=2,8", "seed=0,1"]).runs
    forecast = Forecast([], missing, 1)
    order = list(missing)
    random.Random(0).shuffle(order)
    for left, key in zip((3, 2, 1, 0), order, strict=True):
        config = missing[key]
        record = took(5.0, f"batch_size={config.batch_size}", f"seed={config.seed}")
        if left == 1:  # a run without a record does not count as missing either
            forecast.give_up(key, config)
        else:
            forecast.learn(record)
        assert forecast.seconds() == 5.0 * left
