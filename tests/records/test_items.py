"""The results of test samples: saved by a run, read again, and damaged files."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import SMALL, Run
from records_made import A_RECORD, written

from normbench.config.composition import compose
from normbench.errors import Damaged, NormbenchError, Unreadable
from normbench.records import items
from normbench.records.store import Results, RunWriter, run_folder
from normbench.system import untrusted
from normbench.training import network
from normbench.training.experiment import run_one

RUN = A_RECORD.run_id
OTHER = "0123456789abcdef"


def some_items(count: int = 1500, seed: int = 0) -> items.Items:
    """Return items like those of a classifier with an error of .05."""
    rng = np.random.default_rng(seed)
    losses = np.exp(rng.normal(-4, 3, count)).astype(np.float32)
    values = {"correct": rng.random(count) > 0.05, "loss": losses}
    return items.sorted_items(rng.permutation(5000)[:count], values)


def put(folder: Path, content: bytes) -> Path:
    path = folder / items.ITEMS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return folder


def test_items_are_read_as_they_were_written(tmp_path: Path) -> None:
    before = some_items()
    content = items.packed({RUN: before})
    assert items.packed({RUN: before}) == content
    assert len(content) < 4000
    after = items.read(put(tmp_path / RUN, content))
    assert np.array_equal(after.index, before.index)
    assert np.array_equal(after.values["correct"], before.values["correct"])
    old, new = before.values["loss"], after.values["loss"]
    inside = (old > items.MIN_LOSS) & (old < items.MAX_LOSS)
    assert inside.mean() > 0.9
    assert (abs(new / old - 1)[inside]).max() < 0.037
    assert new.mean() == pytest.approx(old.mean(), rel=0.01)
    assert items.packed({RUN: after}) == content


def test_codes_of_small_large_and_infinite_losses() -> None:
    losses = np.array([0, 1e-9, 1e-5, 1, 1e3, 1e9, np.inf, -np.inf, np.nan], np.float32)
    codes = items.codes(losses)
    assert codes.tolist() == [0, 0, 0, 159, 254, 254, 255, 255, 255]
    expected = [1e-5, 1e-5, 1e-5, 1, 1e3, 1e3, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(items.losses(codes), expected, rtol=0.037)


def test_a_file_can_have_the_items_of_many_runs(tmp_path: Path) -> None:
    runs = {f"{seed:016x}": some_items(seed=seed) for seed in range(20)}
    path = tmp_path / items.ITEMS
    items.write_all(path, runs)
    assert path.stat().st_size * 75 < 5e6  # 1,500 runs
    read = items.read_all(path)
    assert list(read) == list(runs)
    for run_id, run in runs.items():
        assert np.array_equal(read[run_id].index, run.index)
    items.write_all(path, {})
    assert items.read_all(path) == {}


def tensors(**changes: Any) -> dict[str, Any]:
    """Return the tensors of two samples, with `changes`; None leaves one out."""
    usual = {
        f"{RUN}/index": np.array([3, 2], np.int32),
        f"{RUN}/correct": np.array([True, False]),
        f"{RUN}/loss": np.array([0, 255], np.uint8),
    }
    changed = usual | {f"{RUN}/{key}": value for key, value in changes.items()}
    return {key: value for key, value in changed.items() if value is not None}


def packed(tensors: Mapping[str, Any]) -> bytes:
    return gzip.compress(safetensors.numpy.save(dict(tensors)), mtime=0)


def test_a_missing_file_says_which_runs_have_one(tmp_path: Path) -> None:
    folder = written(tmp_path, A_RECORD)
    with pytest.raises(Unreadable, match="does not exist; only finished runs of a new"):
        items.read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a gzip|Compressed file ended|it is not a safetensors file"),
        (b"PK\x03\x04 a numpy archive", "[Nn]ot a gzipped file"),
        (packed(tensors())[:-9], "Compressed file ended"),
        (gzip.compress(b"\x93NUMPY pickled", mtime=0), "it is not a safetensors file"),
        (gzip.compress(b"\xff" * 8 + b"{}", mtime=0), "it is not a safetensors file"),
        (packed(tensors(index=None)), f"run {RUN} has no index"),
        (packed(tensors(index=np.array([1.0, 2.0]))), "is not a list of int32"),
        (packed(tensors(index=np.ones((1, 2), np.int32))), "is not a list of int32"),
        (packed(tensors(index=np.array([3, 0], np.int32))), "is not ascending"),
        (packed(tensors(index=np.array([-1, 2], np.int32))), "is not ascending"),
        (packed(tensors(loss=np.array([1, 2]))), "loss of run .* is int64, not bool"),
        (packed(tensors(loss=np.zeros(3, np.uint8))), "is not one value per sample"),
        (packed({"a.b/loss": np.zeros(2)}), "'a.b/loss' is not RUN_ID/NAME"),
        (packed({f"{RUN}/../x": np.zeros(2)}), "is not RUN_ID/NAME"),
        (packed({f"{RUN}/loss.x": np.zeros(2)}), "is not RUN_ID/NAME"),
        (packed({}), "it has the items of 0 runs"),
        (items.packed({OTHER: some_items(2)}), f"the items of another run, {OTHER}"),
        (
            items.packed({OTHER: some_items(2), RUN: some_items(2)}),
            "it has the items of 2 runs",
        ),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    folder = put(tmp_path / RUN, content)
    with pytest.raises(Damaged, match=message) as error:
        items.read(folder)
    assert str(error.value).startswith(f"{folder / items.ITEMS} is damaged: ")
    assert len(str(error.value).splitlines()) == 1
    usual = items.read(put(tmp_path / RUN, packed(tensors())))
    assert usual.index.tolist() == [3, 5]


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / RUN, gzip.compress(bytes(untrusted.MIB)))
    monkeypatch.setattr(untrusted, "MAX_UNPACKED_BYTES", untrusted.MIB - 1)
    with pytest.raises(Damaged, match="it unpacks to more than"):
        items.read(tmp_path / RUN)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = put(tmp_path / RUN, packed(tensors()))
    (folder / items.ITEMS).rename(tmp_path / "elsewhere")
    (folder / items.ITEMS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NormbenchError, match="it is a link"):
        items.read(folder)


STEPS = ["budget.max_steps=3", "evaluations=1", "tracker=none", "evaluation.at_end=[]"]


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("task", SMALL)
def test_a_run_saves_what_its_metrics_are_the_means_of(
    task: str, norm: str, run: Run, tmp_path: Path
) -> None:
    finished = run(*SMALL[task], *STEPS, f"norm={norm}")
    folder = run_folder(tmp_path / "runs", finished.run_id)
    read = items.read(folder)
    samples = network.make_task(finished.config, torch.device("cpu")).splits["test"]
    assert read.index.tolist() == samples.sort().values.tolist()
    metrics = finished.metrics
    if task == "style":
        assert set(read.values) == {"content", "style"}
        for name, values in read.values.items():
            mean = values.astype(float).mean()
            assert mean == pytest.approx(metrics[f"test/{name}"], rel=1e-6)
    else:
        assert set(read.values) == {"correct", "loss"}
        assert (~read.values["correct"]).mean() == metrics["test/error"]
        mean = read.values["loss"].mean()
        # This network is hardly trained: equal losses are rounded to the same side.
        rel = items.STEP / 2 if task == "module" else 5e-3
        assert mean == pytest.approx(metrics["test/loss"], rel=rel)
    assert (folder / items.ITEMS).stat().st_size < 8000


@pytest.mark.parametrize("task", ["cnn", "transformer"])
def test_the_values_of_a_sample_do_not_depend_on_its_batch(
    task: str, run: Run, tmp_path: Path
) -> None:
    words = [*SMALL[task], *STEPS, "norm=batch"]
    runs = []
    for size in ("null", "auto", "7"):  # "7" sorts texts by length
        results = tmp_path / size
        done = run(*words, f"evaluation.batch_size={size}", results=results)
        runs.append(items.read(run_folder(results, done.run_id)))
    for other in runs[1:]:
        assert np.array_equal(other.index, runs[0].index)
        for name, values in other.values.items():
            # A rounding error may change a code, and the class of few samples.
            same = np.isclose(values, runs[0].values[name], rtol=0.08)
            assert same.mean() > 0.995, name
    assert runs[0].values["correct"].std() > 0


def test_a_repeated_run_leaves_its_items_and_a_new_attempt_removes_them(
    run: Run, tmp_path: Path
) -> None:
    words = [*SMALL["cnn"], *STEPS]
    finished = run(*words)
    folder = run_folder(tmp_path / "runs", finished.run_id)
    path = folder / items.ITEMS
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    assert run(*words) == finished
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    # A record without items, as older versions wrote it, stays finished.
    path.unlink()
    assert run(*words) == finished
    assert not path.exists()
    path.write_bytes(before[0])
    with RunWriter(tmp_path / "runs", finished.run_id) as writer:
        writer.begin(finished.config)
        assert not path.exists()


def test_a_run_that_diverges_has_no_items(tmp_path: Path) -> None:
    config = compose([*SMALL["cnn"], *STEPS, "norm=none", "lr=1e30", "warmup=0.0"])
    finished = run_one(config, Results(tmp_path))
    assert finished.status == "diverged"
    assert not (run_folder(tmp_path, finished.run_id) / items.ITEMS).exists()


def test_items_that_cannot_be_written_fail_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(self: RunWriter, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunWriter, "items", full)
    finished = run(*SMALL["cnn"], *STEPS)
    assert finished.status == "failed"
    assert "No space left" in str(finished.error)
