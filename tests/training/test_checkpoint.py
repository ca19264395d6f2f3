"""Interrupted runs resume to the last bit, or start anew with a warning."""

import errno
import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_made import CNN_WORDS, content, small

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import RunConfig, RunRecord
from normbench.errors import NormbenchError, Stopped
from normbench.records import store
from normbench.records.store import CHECKPOINT, HISTORY, Results
from normbench.training import checkpoint, environment, experiment
from normbench.training.experiment import run_one
from normbench.training.observer import Silent

RUNS = {
    "cnn, drawn groups": [
        *("task=cnn", "norm=group_permuted", "norm.order=random_each_forward"),
        *("norm.num_groups=4", "optimizer=adamw", "lr=0.01"),
    ],
    "cnn, average of the weights": ["task=cnn", "norm=batch", "ema=0.9"],
    "cnn, decay as a schedule": [
        *("task=cnn", "norm=group", "norm.num_groups=4", "optimizer.nesterov=false"),
        "optimizer.decay_as=lr_schedule",
    ],
    "cnn, spectral norm": ["task=cnn", "norm=batch", "reparam=spectral_norm"],
    "cnn, accumulated": ["task=cnn", "norm=batch_regularized", "accumulate=4"],
    "transformer, power": ["task=transformer", "norm=power", "task.dropout=0.2"],
    "transformer, accumulated": [
        *("task=transformer", "norm=batch_renorm", "task.dropout=0.1", "accumulate=2"),
        *("optimizer=sgd", "lr=0.1"),
    ],
    "style, batch": ["task=style", "norm=batch", "data.train_crops=22"],
}


class Killed(BaseException):
    """Ends a run at once, without a chance to save its state."""


class Messages(Silent):
    """An observer that keeps notes and warnings."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


CNN = compose(CNN_WORDS)


def at_call(number: int, killed: bool = False) -> Callable[[], bool]:
    """A `stop` that returns True, or raises Killed, in call `number`."""
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        if calls == number and killed:
            raise Killed
        return calls == number

    return stop


def stopped(config: RunConfig, results: Path, *calls: int) -> Path:
    """The folder of a run that was stopped after `calls` steps of each start."""
    for count in calls:
        with pytest.raises(Stopped):
            run_one(config, Results(results), stop=at_call(count))
    return store.run_folder(results, run_id(config))


def continued(config: RunConfig, results: Path) -> tuple[RunRecord, Messages]:
    messages = Messages()
    return run_one(config, Results(results), observer=messages), messages


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The content of the run CNN without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    return content(folder, run_one(CNN, Results(folder)))


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with the run CNN, stopped after five steps."""
    folder = tmp_path_factory.mktemp("halfway")
    stopped(CNN, folder, 5)
    return folder


LONGER = {"cnn, accumulated", "style, batch", "transformer, accumulated"}
LONGER |= {"cnn, spectral norm", "cnn, decay as a schedule", "transformer, power"}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(words, id=name, marks=pytest.mark.slow if name in LONGER else [])
        for name, words in RUNS.items()
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    overrides: list[str], tmp_path: Path
) -> None:
    config = small(*overrides)
    whole = content(tmp_path, run_one(config, Results(tmp_path)))
    assert whole[2][:2] == ("ok", 10)

    messages = Messages()
    # Before the first checkpoint, at an evaluation between checkpoints, at the end.
    for calls in (2, 5, 7):
        with pytest.raises(Killed):
            run_one(
                config,
                Results(tmp_path / "killed"),
                observer=messages,
                stop=at_call(calls, True),
            )
        torch.rand(7)
    finished = run_one(config, Results(tmp_path / "killed"), observer=messages)
    assert content(tmp_path / "killed", finished) == whole
    assert messages.notes == ["resuming from step 3", "resuming from step 9"]

    stopped(config, tmp_path / "stopped", 1, 4, 5, 2)  # twice in the last evaluation
    finished, messages = continued(config, tmp_path / "stopped")
    assert content(tmp_path / "stopped", finished) == whole
    assert messages.notes == ["resuming from step 10"]
    assert messages.warnings == []


def test_a_run_that_diverges_does_so_at_the_same_step(tmp_path: Path) -> None:
    overrides = ["task=cnn", "norm=none", "lr=1e30", "warmup=0.0", "log_every=10"]
    config = small(*overrides, "evaluations=1")
    whole = run_one(config, Results(tmp_path))
    assert whole.status == "diverged"
    stopped(config, tmp_path / "again", 4)
    again = run_one(config, Results(tmp_path / "again"))
    assert (again.diverged_at, again.metrics) == (whole.diverged_at, whole.metrics)


def test_seconds_add_up_and_the_start_is_the_first(tmp_path: Path) -> None:
    folder = stopped(CNN, tmp_path, 2, 3)
    state = checkpoint.latest(folder, {}, pytest.fail)
    assert state is not None
    finished = run_one(CNN, Results(tmp_path))
    assert finished.started == state.started
    for part, seconds in finished.seconds.model_dump().items():
        assert seconds > state.seconds[part]
    assert finished.samples_per_second == finished.samples / finished.seconds.train


def test_a_run_without_checkpoints_still_stops_with_one(tmp_path: Path) -> None:
    config = small("task=cnn", "checkpoint.every=null")
    with pytest.raises(Stopped, match=r"continues from step 2$"):
        run_one(config, Results(tmp_path), stop=at_call(2))
    finished, messages = continued(config, tmp_path)
    assert finished.status == "ok"
    assert messages.notes == ["resuming from step 2"]


def test_a_disk_that_takes_no_checkpoint_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    messages = Messages()
    with pytest.raises(Stopped, match="continues from the beginning"):
        run_one(CNN, Results(tmp_path), stop=at_call(5), observer=messages)
    (warning,) = messages.warnings
    assert f"written to {store.run_folder(tmp_path, run_id(CNN))} (No space" in warning
    finished, messages = continued(CNN, tmp_path)
    assert finished.status == "ok"
    assert len(messages.warnings) == 1


def test_a_run_with_an_unusable_checkpoint_starts_anew_with_a_warning(
    halfway: Path, whole: tuple[Any, ...], tmp_path: Path
) -> None:
    folder = store.run_folder(tmp_path, run_id(CNN))
    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    path = folder / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1])
    finished, messages = continued(CNN, tmp_path)
    assert content(tmp_path, finished) == whole
    assert messages.notes == []
    (warning,) = messages.warnings
    reason = "its checksum does not match"
    consequence = "the run starts from the beginning"
    assert warning == f"{path} cannot be used ({reason}); {consequence}"


def test_what_makes_a_checkpoint_unusable(halfway: Path, tmp_path: Path) -> None:
    source = store.run_folder(halfway, run_id(CNN))
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    path, history = tmp_path / CHECKPOINT, tmp_path / HISTORY
    written, rows = path.read_bytes(), history.read_bytes()

    def warnings_about(data: bytes) -> list[str]:
        path.write_bytes(data)
        messages = Messages()
        state = checkpoint.latest(tmp_path, {}, messages.warn)
        assert (state is None) == bool(messages.warnings)
        return messages.warnings

    assert warnings_about(written) == []
    for place in [*range(checkpoint.HEADER_SIZE + 5), *range(100, len(written), 2999)]:
        assert len(warnings_about(written[:place])) == 1, place
        changed = bytearray(written)
        changed[place] ^= 1 << place % 8
        assert len(warnings_about(bytes(changed))) == 1, place
    assert len(warnings_about(written + b"\0")) == 1
    code = pickle.dumps(os.getcwd)  # loading this payload would run code
    whole = checkpoint.MAGIC + hashlib.sha256(code).digest() + code
    assert "torch cannot load it" in warnings_about(whole)[0]
    history.write_bytes(rows + b"{")
    assert warnings_about(written) == []
    history.write_bytes(rows[:-1])
    assert "its history file is shorter than it was" in warnings_about(written)[0]
    history.unlink()
    assert "its history file is shorter than it was" in warnings_about(written)[0]
    with path.open("wb") as file:
        file.truncate(2**38)  # a sparse file, which uses no disk space
    messages = Messages()
    assert checkpoint.latest(tmp_path, {}, messages.warn) is None
    assert "not a checkpoint of this version" in messages.warnings[0]


@pytest.mark.parametrize("name", [CHECKPOINT, HISTORY])
def test_a_file_that_cannot_be_read_now_is_not_lost(
    name: str, halfway: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.run_folder(halfway, run_id(CNN))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    real = Path.stat if name == HISTORY else Path.open

    def stale(path: Path, *arguments: Any, **keywords: Any) -> Any:
        if path.name == name:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return real(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, real.__name__, stale)
        with pytest.raises(NormbenchError, match=f"Stale file handle .*{name}"):
            checkpoint.latest(folder, {}, pytest.fail)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert checkpoint.latest(folder, {}, pytest.fail) is not None


def test_another_identity_starts_from_the_beginning(
    halfway: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run, other code, or another version of a package of the data set."""
    other = CNN.model_copy(update={"seed": 7})
    installed = environment.version

    def version(package: str) -> str:
        return "0" if package == "mlxtend" else installed(package)

    def source_hash(config: object) -> str:
        return "other"

    cases: list[tuple[RunConfig, str, str, object]] = [
        (other, "run", "normbench.training.environment.version", installed),
        (CNN, "source", "normbench.records.source.source_hash", source_hash),
        (CNN, "mlxtend", "normbench.training.environment.version", version),
    ]
    for config, changed, name, value in cases:
        results = tmp_path / changed
        folder = store.run_folder(results, run_id(config))
        shutil.copytree(store.run_folder(halfway, run_id(CNN)), folder)
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            environment._versions.cache_clear()
            finished, messages = continued(config, results)
        environment._versions.cache_clear()
        assert finished.status == "ok"
        (warning,) = messages.warnings
        assert f"was written with another {changed}; the run starts" in warning
        assert messages.notes == []


def test_a_run_that_another_finished_meanwhile_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = experiment.check
    others: list[RunRecord] = []

    def slow(*arguments: Any) -> None:
        monkeypatch.setattr(experiment, "check", check)
        others.append(run_one(CNN, Results(tmp_path)))
        check(*arguments)

    monkeypatch.setattr(experiment, "check", slow)
    assert run_one(CNN, Results(tmp_path), stop=at_call(1)) == others[0]


def test_a_record_of_other_code_is_replaced_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_one(CNN, Results(tmp_path))
    assert run_one(CNN, Results(tmp_path, redo_stale=True)) == first
    monkeypatch.setattr("normbench.records.source.source_hash", lambda config: "other")
    assert run_one(CNN, Results(tmp_path)) == first
    again = run_one(CNN, Results(tmp_path, redo_stale=True))
    assert again.environment.source_hash == "other"
    assert again.metrics == first.metrics
    assert run_one(CNN, Results(tmp_path, redo_stale=True)) == again
