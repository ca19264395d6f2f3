"""The output of `show`, and of `doctor` for made findings."""

from pathlib import Path

import pytest
from conftest import Command
from records_made import a_record, written

from normbench.cli import doctor
from normbench.models.finding import Finding


def test_show_prints_the_metrics_before_the_config_and_the_environment(
    invoke: Command, tmp_path: Path
) -> None:
    metrics = {"train/error": 0.125, "test/error": 0.25, "test/loss": 1.0, "a/b": 0.5}
    record = a_record("norm.eps=1e-6", metrics=metrics)
    written(tmp_path / "results" / "runs", record)
    shown = invoke("show", record.run_id[:8]).stdout
    lines = shown.splitlines()
    assert lines[0] == f"run {record.run_id}: cnn batch b32 lr 0.1 s0"
    scaled = a_record("batch_size=2")
    written(tmp_path / "results" / "runs", scaled)
    first = invoke("show", scaled.run_id[:8]).stdout.splitlines()[0]
    assert first.endswith("cnn batch b2 peak_lr 0.00625 s0")
    assert "  test/error          0.2500, the primary metric (minimize)" in lines
    table = lines.index("metrics     error      loss")
    assert lines[table + 1 : table + 3] == [
        "  train    0.1250          ",
        "  test     0.2500    1.0000",
    ]
    assert shown.index("a/b  0.5000") < shown.index("\nconfig\n")
    assert shown.index("\nconfig\n") < shown.index("\nenvironment\n")
    assert "  norm.eps                      1e-06" in lines
    assert "  seconds             setup 1, train 2, evaluate 0.5, probes 0" in lines
    assert max(map(len, lines)) <= 100


def test_doctor_prints_problems_first_and_counts_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = [
        Finding("ok", "packages", "all there"),
        Finding("note", "code", "not committed", "commit it"),
        Finding("ok", "device", "cpu\x1b[2J"),
        Finding("error", "data", "missing"),
    ]
    doctor.print_findings(findings, details=False)
    assert capsys.readouterr().out.splitlines() == [
        "error    data: missing",
        "note     code: not committed",
        "         -> commit it",
        "ok       2 checks; --details prints them",
    ]
    doctor.print_findings(findings, details=True)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "ok       packages: all there",
        r"ok       device: cpu\u001b[2J",
    ]
