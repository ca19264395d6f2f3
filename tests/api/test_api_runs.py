"""normbench.train and normbench.runs."""

from pathlib import Path

import pytest
from conftest import SMALL
from records_made import a_record, written

import normbench
from normbench.errors import RequestError


def test_train_records_a_run_and_runs_has_its_row(tmp_path: Path) -> None:
    record = normbench.train(*SMALL["cnn"], "norm=group", results=tmp_path)
    again = normbench.train(*SMALL["cnn"], "norm=group", results=tmp_path)
    assert (record.status, again.started) == ("ok", record.started)
    frame = normbench.runs("norm=group", results=tmp_path)
    assert list(frame.index) == [record.run_id]
    row = frame.loc[record.run_id]
    assert row["test/error"] == record.metrics["test/error"]
    assert (row["norm.num_groups"], row["seed"]) == (8, 0)


def test_runs_has_the_folder_that_the_commands_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "runs", a_record("seed=3"))
    written(tmp_path / "runs", a_record("seed=1003"))
    monkeypatch.setenv("NORMBENCH_RESULTS", str(tmp_path / "runs"))
    assert list(normbench.runs().seed) == [3]
    assert set(normbench.runs(tuning=True).seed) == {3, 1003}


def test_a_folder_without_runs_has_an_empty_table(tmp_path: Path) -> None:
    assert len(normbench.runs(results=tmp_path)) == 0


def test_a_damaged_record_is_left_out_with_a_warning(tmp_path: Path) -> None:
    folder = written(tmp_path, a_record("seed=3"))
    written(tmp_path, a_record("seed=4"))
    (folder / "result.json").write_text("{")
    with pytest.warns(UserWarning, match="left out: "):
        assert list(normbench.runs(results=tmp_path).seed) == [4]


def test_wrong_input_is_a_request_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="norm=grop"):
        normbench.train("norm=grop", results=tmp_path)
    with pytest.raises(RequestError, match="is not a folder"):
        normbench.runs(results=tmp_path / "none")
    with pytest.raises(RequestError, match="name a norm"):
        normbench.footprint("norm.eps=1")
    assert not list(tmp_path.iterdir())


def test_a_footprint_is_text_and_a_picture(tmp_path: Path) -> None:
    measured = normbench.footprint("instance")
    assert str(measured).startswith("instance")
    assert "<svg" in measured._repr_svg_()
    assert {file.name for file in measured.draw(tmp_path / "new")} == {
        "footprint.svg",
        "footprint.png",
    }
