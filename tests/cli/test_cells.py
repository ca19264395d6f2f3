"""The tables at the end of `sweep` and `train`, and the cells of `--dry-run`."""

import json
from pathlib import Path

import pytest
from comparisons_made import a_comparison
from conftest import Command
from rankings_made import a_ranking, an_arm
from records_made import a_record, with_errors
from verdicts_made import SITUATIONS

from normbench.cli import compare
from normbench.cli.cells import print_finished_cells
from normbench.cli.run import _print_outcome

GRID = ["norm=batch,group", "batch_size=8,32", "seed=0,1", "tracker=none"]


def test_a_dry_run_prints_the_cells(invoke: Command) -> None:
    done = invoke("sweep", *GRID, "--dry-run")
    lines = [line.split() for line in done.stdout.partition("4 cells")[2].splitlines()]
    assert lines[1] == ["norm", "batch_size", "runs", "missing"]
    assert lines[3:] == [
        [norm, size, "2", "2"] for norm in ("batch", "group") for size in ("8", "32")
    ]
    cells = json.loads(invoke("sweep", *GRID, "--dry-run", "--json").stdout)["cells"]
    assert cells[1] == {"norm": "batch", "batch_size": 32, "runs": 2, "missing": 2}
    many = invoke(
        "sweep", "norm=batch", f"lr={','.join(map(str, range(1, 44)))}", "--dry-run"
    )
    assert many.stdout.endswith(
        "3 more cells are left out; --json prints all of them\n"
    )


def test_a_sweep_ends_with_the_means_of_its_cells(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = [*with_errors("batch", [0.1, 0.3]), *with_errors("group", [0.4])]
    records.append(a_record("norm=group", "seed=7", status="diverged", metrics={}))
    print_finished_cells(records)
    table, _, following = capsys.readouterr().out.partition("\nnext: ")
    rows = [
        line.split()
        for line in table.splitlines()
        if line.startswith(("batch", "group"))
    ]
    assert [[row[0], row[1], row[2], row[-1]] for row in rows] == [
        ["batch", "2", "0.2000", "0"],
        ["group", "1", "0.4000", "1"],
    ]
    assert "test/error: mean and 95% interval" in table
    assert following.split() == [
        *"normbench results --by norm normbench plot --by norm".split()
    ]


def test_a_run_shows_each_number_once_and_marks_the_primary_metric(
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = {"train/error": 0.1, "test/error": 0.2, "test_batch/error": 0.2}
    record = a_record("batch_size=2", metrics=metrics, peak_lr=0.00625)
    _print_outcome(record)
    printed = capsys.readouterr().out
    assert "* primary metric test/error: lower is better" in printed
    rows = [line.split() for line in printed.splitlines()[3:]]
    assert rows[0] == ["train", "0.1000"]
    assert rows[1] == ["test", "=", "test_batch", "0.2000", "*"]
    assert printed.splitlines()[-1] == (
        "peak learning rate 0.00625 (lr=0.1, lr_rule=linear, batch_size=2)"
    )


@pytest.mark.slow
def test_compare_ends_with_its_answer_and_saves_it(
    invoke: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = a_comparison([*SITUATIONS["far below"]])
    monkeypatch.setattr(compare, "_compared", lambda *_: made)
    arms = ["--arm", "norm=batch", "--arm", "norm=group norm.num_groups=4"]
    done = invoke("compare", *arms, "--exit-code")
    assert done.returncode == 10, done.stderr
    assert "GroupNorm with 4 groups is better: 10.35 %" in done.stdout.splitlines()[-1]
    assert done.stdout.count("exploratory") == 1
    assert "THEOREM" not in done.stdout
    folder = f"results/runs/comparisons/{made.name}"
    assert f"saved: {folder} (comparison.json, " in done.stdout
    as_json = invoke("compare", *arms, "--json")
    assert as_json.returncode == 0
    assert json.loads(as_json.stdout)["outcomes"][0]["contrasts"][0]["n"] == 8
    (tmp_path / "file").write_text("mine")
    unsaved = invoke("compare", *arms, "--results", "file")
    assert "warning: the answer is not saved: file/" in unsaved.stderr
    assert "GroupNorm with 4 groups is better" in unsaved.stdout
    (tmp_path / "none").mkdir()
    reported = invoke("report", "--claims", "none")
    assert reported.returncode == 0, reported.stderr
    html = (tmp_path / "report.html").read_text()
    assert "Your comparisons" in html and "GroupNorm with 4 groups is better" in html
    assert (tmp_path / folder / "comparison-contrasts.png").is_file()


@pytest.mark.usefixtures("no_package_verdicts")
def test_a_ranking_saves_its_figures_and_the_report_shows_them(
    invoke: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arms = an_arm("BatchNorm", "best", 0.0), an_arm("InstanceNorm", "worse", 0.03)
    made = a_comparison(arms=["norm=batch", "norm=instance"], ranking=a_ranking(*arms))
    monkeypatch.setattr(compare, "_compared", lambda *_: made)
    words = ["--arm", "norm=batch", "--arm", "norm=instance", "--minutes", "5"]
    done = invoke("compare", *words)
    assert done.returncode == 0, done.stderr
    figures = ("comparison", "comparison-contrasts")
    names = [f"{name}.{kind}" for name in figures for kind in ("svg", "png")]
    folder = f"results/runs/comparisons/{made.name}"
    saved = f"saved: {folder} (comparison.json, {', '.join(names)})"
    assert saved in " ".join(done.stdout.split())
    assert all((tmp_path / folder / name).is_file() for name in names)
    (tmp_path / "none").mkdir()
    assert invoke("report", "--claims", "none").returncode == 0
    html = (tmp_path / "report.html").read_text()
    assert html.count("BatchNorm is the best of 2 arms: ") > 3
    for title in ("BatchNorm or InstanceNorm", "BatchNorm or InstanceNorm: contrasts"):
        assert f">{title}</title>" in html
