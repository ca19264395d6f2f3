"""The command `results`: JSON, CSV, Parquet and tables of runs and cells."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from records_made import A_RECORD, a_record, with_errors, written

from normbench.cli import tables
from normbench.config.identity import run_id
from normbench.config.schema import RunRecord
from normbench.records import query
from normbench.records.store import run_folder


@pytest.fixture
def six_runs(tmp_path: Path) -> list[RunRecord]:
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
    six_runs: list[RunRecord], invoke: Command
) -> None:
    printed = json.loads(invoke("results", "--json").stdout)
    assert printed == [finished.model_dump(mode="json") for finished in six_runs]
    arguments = ["--json", "--where", "test/error<0.3", "--sort", "-test/error"]
    chosen = json.loads(invoke("results", *arguments).stdout)
    assert [run["metrics"]["test/error"] for run in chosen] == [0.2, 0.1]


def test_cells_are_the_same_in_every_form(
    six_runs: list[RunRecord], invoke: Command, tmp_path: Path
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


def test_means_leave_out_runs_of_tuning_seeds_and_say_so(
    six_runs: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    for seed in (1000, 1001):
        tuned = a_record("norm=batch", f"seed={seed}", metrics={"test/error": 0.9})
        written(tmp_path / "results" / "runs", tuned)
    by = ["results", "--by", "norm", "--where", "norm=batch", "--json"]
    done = invoke(*by)
    (row,) = json.loads(done.stdout)
    assert (row["n"], row["mean"]) == (2, 0.4)
    note = "note: 2 runs of tuning seeds left out; --tuning shows them"
    assert note in done.stderr.splitlines()
    done = invoke(*by, "--tuning")
    (row,) = json.loads(done.stdout)
    assert (row["n"], row["mean"]) == (4, pytest.approx(0.65))
    assert "tuning" not in done.stderr
    assert len(json.loads(invoke("results", "--json").stdout)) == 8
    assert "of tuning" not in invoke("results", "--by", "norm", "--tuning").stderr


def from_parquet(file: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    return rows


def test_parquet_of_runs_has_every_key(
    six_runs: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    assert invoke("results", "--parquet", "runs.parquet").returncode == 0
    rows = [query.row(finished) for finished in six_runs]
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
    six_runs: list[RunRecord],
    invoke: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = invoke("results", "--parquet", "x.parquet")
    assert done.returncode == 2
    assert "normbench[parquet]" in done.stderr
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
    six_runs: list[RunRecord], invoke: Command
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
    assert "options of some runs: norm.momentum=0.1, norm.track_" in title
    assert "seed=0" in title
    written(tmp_path / "results" / "runs", a_record("norm=group", "lr=0.2"))
    table = invoke("results", "--where", "norm=group").stdout.partition("run_id ")[2]
    # What these records have in common, peak_lr too, is in the title.
    columns = ["task.depth", "norm.num_groups", "lr", "warmup"]
    assert table.splitlines()[0].split() == columns


def test_a_warning_names_runs_that_do_not_compare(
    six_runs: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    assert invoke("results", "--by", "norm").stderr == ""
    other = a_record("norm=batch", "lr=0.3", primary_metric="test/loss", metrics={})
    written(tmp_path / "results" / "runs", other)
    done = invoke("results", "--by", "norm")
    assert "different primary metrics (test/error, test/loss)" in done.stderr
    assert "differ in lr;" in done.stderr
    assert "1 ok runs have no test/loss" in done.stderr
    assert "different primary metrics" in invoke("results").stderr
    chosen = invoke("results", "--metric", "test/error")
    assert "primary" not in chosen.stderr


def test_a_damaged_record_is_named_and_the_others_are_summed_up(
    six_runs: list[RunRecord], invoke: Command, tmp_path: Path
) -> None:
    (path, *_) = sorted(tmp_path.rglob("result.json"))
    path.write_bytes(path.read_bytes()[:-40])
    done = invoke("results", "--by", "norm", "--json")
    assert str(path.relative_to(tmp_path)) in done.stderr
    rows = json.loads(done.stdout)
    assert sum(row["n"] + row["failures"] for row in rows) == 5


@pytest.mark.parametrize("arguments", [[], ["--by", "norm,batch_size"]])
def test_tables_fit_a_terminal_of_80_columns(
    arguments: list[str],
    six_runs: list[RunRecord],
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


def test_a_wrong_key_or_value_in_a_condition_has_a_suggestion(
    six_runs: list[RunRecord], invoke: Command
) -> None:
    for condition, suggestion in (
        ("foo=1", "no key is similar; `normbench show RUN_ID` prints the keys"),
        ("momentum=1", "did you mean 'norm.momentum' or 'optimizer.momentum'?"),
        ("eror=1", "error"),
    ):
        refused = invoke("results", "--where", condition)
        assert (refused.returncode, suggestion in refused.stderr) == (2, True)
        assert len(refused.stderr) < 200
    norm = six_runs[0].config.norm.name
    for spelling in (f"{norm.title()}Norm", norm.upper()):
        empty = invoke("results", "--where", f"norm={spelling}")
        note = f"note: no run has norm={spelling}; did you mean '{norm}'?\n"
        assert (empty.returncode, note in empty.stderr) == (0, True)
    assert "no run has" not in invoke("results", "--where", "norm=rms").stderr
