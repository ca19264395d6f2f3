"""Questions to records: conditions, order, cells; and the command that asks them."""

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st
from records_made import A_RECORD, a_record, written

from normbench.cli import tables
from normbench.config.identity import run_id
from normbench.config.schema import RunRecord
from normbench.errors import RequestError
from normbench.records import query
from normbench.records.store import run_folder

THREE = [
    a_record("norm=group", "norm.num_groups=4", "batch_size=2"),
    a_record("norm=group", "batch_size=8"),
    a_record("norm=batch", status="diverged", metrics={"test/error": None}),
]
"""`norm.num_groups` is 4, 8, and no key of the third."""


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


def with_errors(norm: str, errors: list[float], **changes: Any) -> list[RunRecord]:
    return [
        a_record(
            f"norm={norm}", f"seed={s}", **({"metrics": {"test/error": e}} | changes)
        )
        for s, e in enumerate(errors)
    ]


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


def test_by_takes_any_key_and_refuses_what_is_none() -> None:
    groups = query.cells(THREE, ["norm.num_groups"])
    assert [cell.by["norm.num_groups"] for cell in groups] == [4, 8, None]
    assert len(query.cells(THREE, ["status"])) == 2
    for key, words in {"bath_size": "batch_size", "budget": "budget.epochs"}.items():
        with pytest.raises(RequestError, match=words):
            query.cells(THREE, [key])
    with pytest.raises(RequestError, match="test/error"):
        query.cells(THREE, ["norm"], ["test/eror"])


def test_what_differs_within_a_cell_is_named() -> None:
    assert query.mixtures(with_errors("group", [0.1, 0.2]), ["norm"]) == []
    assert query.mixtures(THREE, ["norm"]) == [
        "batch_size",
        "norm.num_groups",
        "norm_batch",
    ]
    assert query.mixtures(THREE, ["norm", "norm.num_groups"]) == []
    assert "norm" in query.mixtures(THREE, ["task"])


# The command


@pytest.fixture
def some(tmp_path: Path) -> list[RunRecord]:
    """Six runs in two cells, one of them diverged, where `invoke` finds them."""
    lost = a_record(
        "norm=group", "seed=3", status="diverged", metrics={"test/error": None}
    )
    records = [
        *with_errors("batch", [0.3, 0.5]),
        *with_errors("group", [0.1, 0.2, 0.4]),
        lost,
    ]
    for finished in records:
        written(tmp_path / "results" / "runs", finished)
    return sorted(records, key=lambda finished: finished.run_id)


def test_json_of_runs_is_exactly_the_records(
    some: list[RunRecord], invoke: Command
) -> None:
    printed = json.loads(invoke("results", "--json").stdout)
    assert printed == [finished.model_dump(mode="json") for finished in some]
    arguments = ["--json", "--where", "test/error<0.3", "--sort", "-test/error"]
    chosen = json.loads(invoke("results", *arguments).stdout)
    assert [run["metrics"]["test/error"] for run in chosen] == [0.2, 0.1]


def test_cells_are_the_same_in_every_form(
    some: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    by = ["results", "--by", "norm,batch_size", "--sort", "mean"]
    rows = json.loads(invoke(*by, "--json").stdout)
    columns = ["norm", "batch_size", "metric"]
    columns += ["n", "mean", "low", "high", "sd", "failures"]
    assert [list(row) for row in rows] == [columns, columns]
    assert [row["norm"] for row in rows] == ["group", "batch"]
    assert [row["n"] for row in rows] == [3, 2]
    assert [row["failures"] for row in rows] == [1, 0]
    assert rows[0]["mean"] == pytest.approx(0.7 / 3)

    as_csv = csv.DictReader(io.StringIO(invoke(*by, "--csv").stdout))
    assert list(as_csv) == [{k: str(v) for k, v in row.items()} for row in rows]

    done = invoke(*by, "--parquet", "cells.parquet")
    assert (done.returncode, done.stdout) == (0, "")
    assert "2 rows" in done.stderr
    assert from_parquet(tmp_path / "cells.parquet") == rows

    table = invoke(*by).stdout
    for row in rows:
        assert f"{row['mean']:.4f}" in table
    assert "metric=test/error" in table


def from_parquet(file: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    return rows


def test_parquet_of_runs_has_every_key(
    some: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    assert invoke("results", "--parquet", "runs.parquet").returncode == 0
    rows = [query.row(finished) for finished in some]
    keys = {key for row in rows for key in row}
    whole = [{key: _in_parquet(row.get(key)) for key in keys} for row in rows]
    assert from_parquet(tmp_path / "runs.parquet") == whole


def _in_parquet(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def test_a_column_of_mixed_kinds_is_text_in_parquet(tmp_path: Path) -> None:
    from normbench.records.export import write_parquet

    rows: list[dict[str, Any]] = [
        {"mixed": 1, "number": 1, "list": [1, 2], "none": None},
        {"mixed": "a", "number": 0.5},
        {"mixed": None, "number": None},
    ]
    write_parquet(rows, tmp_path / "x.parquet")
    assert from_parquet(tmp_path / "x.parquet") == [
        {"mixed": "1", "number": 1.0, "list": "[1, 2]", "none": None},
        {"mixed": '"a"', "number": 0.5, "list": None, "none": None},
        {"mixed": None, "number": None, "list": None, "none": None},
    ]


def test_parquet_without_pyarrow_says_how_to_get_it(
    some: list[RunRecord],
    invoke: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    told = invoke("results", "--parquet", "x.parquet")
    assert told.returncode == 2
    assert "normbench[parquet]" in told.stderr
    assert not (tmp_path / "x.parquet").exists()


WRONG = {
    "--json --csv": ["--json", "--csv"],
    "--where norm<3": ["--where", "not a number"],
    "--where nrm=batch": ["nrm", "'norm'"],
    "--by nrm": ["--by nrm", "'norm'"],
    "--by norm,": ["--by"],
    "--by norm --sort seed": ["--sort seed", "mean"],
    "--sort sed": ["--sort sed", "'seed'"],
    "--metric error": ["--metric error", "test/error"],
    "--parquet no/folder/x": ["--parquet no/folder/x"],
}


def test_a_wrong_question_is_answered_in_three_lines(
    some: list[RunRecord], invoke: Command
) -> None:
    for arguments, words in WRONG.items():
        done = invoke("results", *arguments.split())
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("error: "), arguments
        assert len(done.stderr.splitlines()) <= 3, arguments
        assert all(word in done.stderr for word in words), (arguments, done.stderr)


def test_a_table_of_runs_shows_every_key_that_differs(
    invoke: Command, tmp_path: Path
) -> None:
    for record in (
        a_record("norm=batch", peak_lr=0.00625),
        a_record("norm=batch", "budget.epochs=3", "clip=1.0"),
        a_record("norm=batch", "optimizer.momentum=0.5", "data.augment=[flip]"),
        a_record("norm=group", "norm.num_groups=4", "task.depth=2"),
        a_record("norm=group", "warmup=0.2", "tracker=none", "probes=[]"),
    ):
        written(tmp_path / "results" / "runs", record)
    title, _, table = invoke("results").stdout.partition("run_id ")
    head = table.splitlines()[0].split()
    assert head == [
        *["task.depth", "data.augment", "norm", "norm.num_groups"],
        *["optimizer.momentum", "peak_lr", "warmup", "clip", "budget.epochs"],
    ]
    for text in ("0.00625", "null", '["flip"]', " - "):
        assert text in table
    assert "options of some runs: norm.momentum=0.1; all with status=ok," in title
    assert "seed=0" in title
    written(tmp_path / "results" / "runs", a_record("norm=group", "lr=0.2"))
    table = invoke("results", "--where", "norm=group").stdout.partition("run_id ")[2]
    # What these records have in common, peak_lr too, is in the title.
    columns = ["task.depth", "norm.num_groups", "lr", "warmup"]
    assert table.splitlines()[0].split() == columns


def test_what_does_not_compare_is_noted(
    some: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    assert invoke("results", "--by", "norm").stderr == ""
    other = a_record("norm=batch", "lr=0.3", primary_metric="test/loss", metrics={})
    written(tmp_path / "results" / "runs", other)
    told = invoke("results", "--by", "norm")
    assert "different primary metrics (test/error, test/loss)" in told.stderr
    assert "differ in lr;" in told.stderr
    assert "1 ok runs have no test/loss" in told.stderr
    assert "different primary metrics" in invoke("results").stderr
    chosen = invoke("results", "--metric", "test/error")
    assert "primary" not in chosen.stderr


def test_a_damaged_record_is_named_and_the_others_are_summed_up(
    some: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    (path, *_) = sorted(tmp_path.rglob("result.json"))
    path.write_bytes(path.read_bytes()[:-40])
    told = invoke("results", "--by", "norm", "--json")
    assert str(path.relative_to(tmp_path)) in told.stderr
    rows = json.loads(told.stdout)
    assert sum(row["n"] + row["failures"] for row in rows) == 5


@pytest.mark.parametrize("arguments", [[], ["--by", "norm,batch_size"]])
def test_tables_fit_a_terminal_of_80_columns(
    arguments: list[str],
    some: list[RunRecord],
    invoke: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "output_width", lambda: 80)
    lines = invoke("results", *arguments, NO_COLOR="1").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    head = next(i for i, line in enumerate(lines) if set(line.strip()) == {"─"})
    assert len(lines) - head - 1 == (2 if arguments else 6), lines


def test_hundreds_of_runs_are_cut_and_it_says_so(
    invoke: Command, tmp_path: Path
) -> None:
    ids = []
    for seed in range(203):
        config = A_RECORD.config.model_copy(update={"seed": seed})
        ids.append(run_id(config))
        folder = run_folder(tmp_path / "results" / "runs", ids[-1])
        folder.mkdir(parents=True)
        finished = A_RECORD.model_copy(update={"run_id": ids[-1], "config": config})
        (folder / "result.json").write_text(finished.model_dump_json())
    shown = invoke("results")
    assert sorted(ids)[199] in shown.stdout
    assert sorted(ids)[200] not in shown.stdout
    assert "the first 200 of 203 rows" in shown.stderr
    assert len(invoke("results", "--csv").stdout.splitlines()) == 204
