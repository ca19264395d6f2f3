"""Queries over records: conditions, sort order, and cells."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_made import A_RECORD, a_record, with_errors

from normbench.config.schema import RunConfig
from normbench.errors import RequestError
from normbench.records import query

THREE = [
    a_record("norm=group", "norm.num_groups=4", "batch_size=2"),
    a_record("norm=group", "batch_size=8"),
    a_record("norm=batch", status="diverged", metrics={"test/error": None}),
]
"""Their `norm.num_groups` are 4, 8 and absent."""


def ids(*where: str) -> list[int]:
    return [THREE.index(kept) for kept in query.matching(THREE, where)]


KEPT = {
    "": [0, 1, 2],
    "norm=group": [0, 1],
    "norm!=group": [2],
    "norm.num_groups=4": [0],
    "norm.num_groups!=4": [1, 2],
    "norm.num_groups>4": [1],
    "norm.num_groups<=8": [0, 1],
    "batch_size=8;norm=group": [1],
    "batch_size>=2;batch_size < 32": [0, 1],
    "status=diverged": [2],
    "status!=ok": [2],
    "test/error=0.25": [0, 1],
    "test/error<0.3": [0, 1],
    "test/error>=0": [0, 1],
    "test/error=null": [2],
    "test/error!=null": [0, 1],
    "seconds.train>1.5": [0, 1, 2],
    "optimizer=sgd": [0, 1, 2],
    "norm=instance": [],
}
WRONG_CONDITIONS = {
    "batchsize=2": ["batchsize", "batch_size"],
    "norm": ["KEY=VALUE"],
    "seed==4": ["KEY=VALUE"],
    "=4": ["KEY=VALUE"],
    "norm<4": ["norm", "not a number", "group"],
    "norm_weight_decay>0": ["norm_weight_decay", "not a number"],
    "seed<four": ["four", "not a number"],
    "seed<nan": ["nan", "not a number"],
    "budget=3": ["section", "budget.epochs"],
    "metrics=3": ["section", "metrics.test/error"],
}
HOLDS = {
    "lr=1e-1": True,
    "lr=.1": True,
    "lr=fast": False,
    "norm_weight_decay=false": True,
    "seed=false": False,
    "clip=null": True,
    "norm={": False,
    "norm=*x": False,
    "budget.max_steps=null": True,
}


def test_where_selects_by_config_field_and_metric() -> None:
    for where, kept in KEPT.items():
        assert ids(*filter(None, where.split(";"))) == kept, where


def test_a_wrong_condition_says_what_is_right() -> None:
    for condition, words in WRONG_CONDITIONS.items():
        with pytest.raises(RequestError) as error:
            ids(condition)
        for word in ["--where", *words]:
            assert word in str(error.value), condition


def test_where_reads_values_as_a_person_types_them() -> None:
    for condition, holds in HOLDS.items():
        assert bool(query.matching([A_RECORD], [condition])) == holds, condition
        opposite = condition.replace("=", "!=")
        assert bool(query.matching([A_RECORD], [opposite])) != holds, condition


def test_a_condition_on_no_records_is_right() -> None:
    assert query.matching([], ["anything=1"]) == []


def test_every_key_of_a_record_has_its_value() -> None:
    for key, item in query.flat(A_RECORD.config).items():
        assert query.value(A_RECORD, key) == item
    for key, item in A_RECORD.metrics.items():
        assert query.value(A_RECORD, key) == item
    assert query.value(A_RECORD, "environment.device") == "cpu"
    for key in ("nothing", "norm.nothing", "seed.nothing", "seconds.nothing", "."):
        assert query.value(A_RECORD, key) is query.ABSENT


def test_sort_goes_both_ways_and_puts_what_has_no_value_last() -> None:
    def order(sort: str) -> list[int]:
        return [THREE.index(finished) for finished in query.in_order(THREE, sort)]

    assert order("batch_size") == [0, 1, 2]
    assert order("-batch_size") == [2, 1, 0]
    assert order("norm.num_groups") == [0, 1, 2]
    assert order("-norm.num_groups") == [1, 0, 2]
    assert order("-test/error") == [0, 1, 2]
    assert order("norm") == [2, 0, 1]
    with pytest.raises(RequestError, match="--sort nothing"):
        order("nothing")


def test_a_cell_has_the_mean_the_interval_and_the_failures() -> None:
    ok = with_errors("group", [0.1, 0.2, 0.3, 0.4])
    lost: list[Any] = ["diverged", "failed", "skipped"]
    failures = [
        a_record("norm=group", f"seed={9 + i}", status=status, metrics={})
        for i, status in enumerate(lost)
    ]
    null = a_record("norm=group", "seed=20", metrics={"test/error": None})
    (cell,) = query.cells([*ok, *failures, null], ["norm"])
    sd = math.sqrt(0.05 / 3)
    half = 3.182446305 * sd / 2  # t(0.975, 3 degrees of freedom) of the tables
    assert cell.by == {"norm": "group"}
    assert (cell.n, cell.failures, cell.without) == (4, 4, 0)
    assert cell.mean == pytest.approx(0.25)
    assert cell.sd == pytest.approx(sd)
    assert cell.low == pytest.approx(0.25 - half)
    assert cell.high == pytest.approx(0.25 + half)


def test_one_run_has_no_interval_and_none_has_no_mean() -> None:
    one = with_errors("group", [0.1])
    none = with_errors("batch", [0.1], status="diverged", metrics={"test/error": None})
    batch, group = query.cells([*one, *none], ["norm"])
    assert (group.n, group.mean, group.low, group.sd) == (1, 0.1, None, None)
    assert (batch.n, batch.mean, batch.failures) == (0, None, 1)


@given(
    runs=st.lists(
        st.tuples(
            st.sampled_from(["ok", "diverged", "failed", "skipped"]),
            st.none() | st.floats(0, 1),
            st.sampled_from([1, 2, 4]),
        )
    )
)
def test_every_run_is_in_one_cell_and_counted_there(runs: list[Any]) -> None:
    records = [
        A_RECORD.model_copy(
            update={
                "status": status,
                "metrics": {} if error is None else {"test/error": error},
                "config": A_RECORD.config.model_copy(update={"batch_size": size}),
            }
        )
        for status, error, size in runs
    ]
    cells = query.cells(records, ["batch_size"])
    assert [c.by["batch_size"] for c in cells] == sorted({run[2] for run in runs})
    assert sum(c.n + c.failures + c.without for c in cells) == len(records)


def test_runs_with_different_primary_metrics_are_never_in_one_mean() -> None:
    error = with_errors("group", [0.1, 0.2])
    metrics = {"metrics": {"test/loss": 3.0, "test/error": 0.9}}
    loss = a_record("norm=group", "seed=7", primary_metric="test/loss", **metrics)
    records = [*error, loss]
    assert query.primary_metrics(records) == ["test/error", "test/loss"]
    cells = query.cells(records, ["norm"])
    assert [(c.metric, c.n, c.mean) for c in cells] == [
        ("test/error", 2, pytest.approx(0.15)),
        ("test/loss", 1, 3.0),
    ]
    chosen = query.cells(records, ["norm"], ["test/loss", "test/error"])
    assert [(c.metric, c.n, c.without) for c in chosen] == [
        ("test/error", 3, 0),
        ("test/loss", 1, 2),
    ]


def test_by_takes_any_key_and_refuses_unknown_keys() -> None:
    groups = query.cells(THREE, ["norm.num_groups"])
    assert [cell.by["norm.num_groups"] for cell in groups] == [4, 8, None]
    assert len(query.cells(THREE, ["status"])) == 2
    for key, words in {"bath_size": "batch_size", "budget": "budget.epochs"}.items():
        with pytest.raises(RequestError, match=words):
            query.cells(THREE, [key])
    with pytest.raises(RequestError, match="test/error"):
        query.cells(THREE, ["norm"], ["test/eror"])


def test_keys_that_differ_within_a_cell_are_named() -> None:
    assert query.mixtures(with_errors("group", [0.1, 0.2]), ["norm"]) == []
    assert query.mixtures(THREE, ["norm"]) == [
        "batch_size",
        "norm.num_groups",
        "norm_batch",
    ]
    assert query.mixtures(THREE, ["norm", "norm.num_groups"]) == []
    assert "norm" in query.mixtures(THREE, ["task"])


def test_a_record_from_before_an_option_does_not_differ_by_its_first_value() -> None:
    cat = a_record("task=style", "data.held_out=cat")
    config = cat.config.model_dump()
    del config["data"]["held_out"]
    older = cat.model_copy(update={"config": RunConfig.model_validate(config)})
    assert query.mixtures([cat, older], ["norm"]) == []
    rotated = a_record("task=style", "data.held_out=by_seed")
    assert query.mixtures([rotated, older], ["norm"]) == ["data.held_out"]


# The command
