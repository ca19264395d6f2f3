"""Interrupted runs: taken up again to the last bit, from whatever is whole."""

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL

from normbench.config.composition import compose
from normbench.config.identity import run_id
from normbench.config.schema import RunConfig, RunRecord
from normbench.errors import NormbenchError, Stopped
from normbench.records import store
from normbench.records.store import CHECKPOINT, HISTORY, PREVIOUS_CHECKPOINT, Results
from normbench.training import checkpoint, environment, experiment
from normbench.training.checkpoint import State
from normbench.training.observer import Silent

TEN_STEPS = [
    *("budget.epochs=2", "budget.max_steps=10", "evaluations=2", "log_every=4"),
    *("checkpoint.every=3", "tracker=none"),
]
RUNS = {
    "cnn, drawn groups": [
        *("task=cnn", "norm=group_permuted", "norm.order=random_each_forward"),
        *("norm.num_groups=4", "optimizer=adamw", "lr=0.01"),
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
    """Ends a run at once, as a signal does."""


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def small(*overrides: str) -> RunConfig:
    task = next(word for word in overrides if word.startswith("task=")).split("=")[1]
    return compose([*SMALL[task], *TEN_STEPS, *overrides])


CNN = small("task=cnn", "norm=batch")


def after(calls: int, killed: bool = False) -> Callable[[], bool]:
    """A `stop` that says so, or kills, when it is asked for the `calls`-th time."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == calls and killed:
            raise Killed
        return asked == calls

    return stop


def stopped(config: RunConfig, results: Path, *calls: int) -> Path:
    """The folder of a run that was stopped so many steps on, so many times."""
    for count in calls:
        with pytest.raises(Stopped):
            experiment.run_one(config, Results(results), stop=after(count))
    return store.run_folder(results, run_id(config))


def outcome(results: Path, finished: RunRecord) -> tuple[Any, ...]:
    """All that must not depend on interruptions."""
    folder = store.run_folder(results, finished.run_id)
    history = (folder / HISTORY).read_text()
    counts = (finished.status, finished.steps, finished.samples, finished.parameters)
    return finished.metrics, history, counts, {file.name for file in folder.iterdir()}


LONGER = {"cnn, accumulated", "style, batch", "transformer, accumulated"}
LONGER |= {"cnn, spectral norm", "transformer, power"}


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
    whole = outcome(tmp_path, experiment.run_one(config, Results(tmp_path)))
    assert whole[2][:2] == ("ok", 10)

    told = Told()
    # Before the first checkpoint, at an evaluation between two, at the last step.
    for calls in (2, 5, 7):
        with pytest.raises(Killed):
            experiment.run_one(
                config,
                Results(tmp_path / "killed"),
                observer=told,
                stop=after(calls, True),
            )
        torch.rand(7)
    finished = experiment.run_one(config, Results(tmp_path / "killed"), observer=told)
    assert outcome(tmp_path / "killed", finished) == whole
    assert told.notes == ["going on from step 3", "going on from step 9"]

    told = Told()
    stopped(config, tmp_path / "stopped", 1, 4, 5, 2)  # twice in the last evaluation
    finished = experiment.run_one(config, Results(tmp_path / "stopped"), observer=told)
    assert outcome(tmp_path / "stopped", finished) == whole
    assert told.notes == ["going on from step 10"]
    assert told.warnings == []


def test_a_run_that_diverges_does_so_at_the_same_step(tmp_path: Path) -> None:
    overrides = ["task=cnn", "norm=none", "lr=1e30", "warmup=0.0", "log_every=10"]
    config = small(*overrides, "evaluations=1")
    whole = experiment.run_one(config, Results(tmp_path))
    assert whole.status == "diverged"
    stopped(config, tmp_path / "again", 4)
    again = experiment.run_one(config, Results(tmp_path / "again"))
    assert (again.diverged_at, again.metrics) == (whole.diverged_at, whole.metrics)


def test_seconds_add_up_and_the_start_is_the_first(tmp_path: Path) -> None:
    folder = stopped(CNN, tmp_path, 2, 3)
    content = (folder / CHECKPOINT).read_bytes()[checkpoint.HEADER :]
    plain = torch.load(io.BytesIO(content), weights_only=True)
    del plain["history_sha256"]
    state = State(**plain)
    finished = experiment.run_one(CNN, Results(tmp_path))
    assert finished.started == state.started
    for part, seconds in finished.seconds.model_dump().items():
        assert seconds > state.seconds[part]
    assert finished.samples_per_second == finished.samples / finished.seconds.train


def test_a_run_without_checkpoints_still_stops_with_one(tmp_path: Path) -> None:
    config = small("task=cnn", "checkpoint.every=null")
    with pytest.raises(Stopped, match=r"goes on from step 2$"):
        experiment.run_one(config, Results(tmp_path), stop=after(2))
    told = Told()
    assert experiment.run_one(config, Results(tmp_path), observer=told).status == "ok"
    assert told.notes == ["going on from step 2"]


def test_a_disk_that_takes_no_checkpoint_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    told = Told()
    with pytest.raises(Stopped, match="starts it again"):
        experiment.run_one(CNN, Results(tmp_path), stop=after(5), observer=told)
    assert experiment.run_one(CNN, Results(tmp_path), observer=told).status == "ok"
    assert len(told.warnings) == 2
    assert "No space left" in told.warnings[0]


@pytest.mark.parametrize(
    ("damaged", "begins"),
    [
        ([CHECKPOINT], "going on from step 3"),
        ([CHECKPOINT, PREVIOUS_CHECKPOINT], None),
        ([HISTORY], "going on from step 3"),
    ],
)
def test_a_damaged_file_is_told_and_what_is_whole_is_used(
    damaged: list[str], begins: str | None, tmp_path: Path
) -> None:
    whole = outcome(tmp_path, experiment.run_one(CNN, Results(tmp_path)))
    folder = stopped(CNN, tmp_path / "damaged", 5)
    for name in damaged:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    told = Told()
    finished = experiment.run_one(CNN, Results(tmp_path / "damaged"), observer=told)
    assert outcome(tmp_path / "damaged", finished) == whole
    assert told.notes == ([begins] if begins else [])
    (warning,) = told.warnings
    assert all(name in warning or name == HISTORY for name in damaged)


def test_a_checkpoint_of_another_run_is_none_to_go_on_from(tmp_path: Path) -> None:
    whole = outcome(tmp_path, experiment.run_one(CNN, Results(tmp_path)))
    other = stopped(CNN.model_copy(update={"seed": 7}), tmp_path, 5)
    folder = store.run_folder(tmp_path / "again", run_id(CNN))
    shutil.copytree(other, folder)
    told = Told()
    finished = experiment.run_one(CNN, Results(tmp_path / "again"), observer=told)
    assert outcome(tmp_path / "again", finished) == whole
    (warning,) = told.warnings
    assert "is of another run: the run starts again" in warning


def test_other_code_starts_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(CNN, tmp_path, 5)
    monkeypatch.setattr("normbench.records.source.source_hash", lambda: "other")
    told = Told()
    assert experiment.run_one(CNN, Results(tmp_path), observer=told).status == "ok"
    (warning,) = told.warnings
    assert "another source" in warning
    assert told.notes == []


def test_another_version_of_a_data_package_starts_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(CNN, tmp_path, 5)
    installed = environment.version

    def version(package: str) -> str:
        return "0" if package == "mlxtend" else installed(package)

    environment._versions.cache_clear()
    monkeypatch.setattr(environment, "version", version)
    told = Told()
    finished = experiment.run_one(CNN, Results(tmp_path), observer=told)
    environment._versions.cache_clear()
    assert finished.environment.packages["mlxtend"] == "0"
    (warning,) = told.warnings
    assert "another mlxtend" in warning
    assert told.notes == []


def a_state(step: int) -> State:
    model = torch.nn.BatchNorm1d(3)
    return State(
        identity={"source": "here"},
        step=step,
        model=model.state_dict(),
        optimizer=torch.optim.AdamW(model.parameters()).state_dict(),
        random=[checkpoint.random_states(torch.device("cpu"))],
        pending=[torch.tensor(float(step))],
        history=0,
        started="now",
        seconds={"train": 1.0},
    )


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Path]:
    """A folder with the checkpoints of steps 3 and 6."""
    for step in (3, 6):
        checkpoint.save(tmp_path, a_state(step))
    yield tmp_path


def found(folder: Path, identity: Mapping[str, str] | None = None) -> tuple[int, int]:
    """The step that `folder` goes on from (0: the beginning), and how much was told."""
    told = Told()
    state = checkpoint.latest(folder, identity or {"source": "here"}, told.warn)
    return (state.step if state else 0), len(told.warnings)


def test_the_last_state_comes_back_as_it_was(two: Path) -> None:
    told = Told()
    state = checkpoint.latest(two, {"source": "here"}, told.warn)
    assert state is not None
    expected = a_state(6)
    assert (state.step, state.started, state.seconds) == (6, "now", {"train": 1.0})
    assert [loss.item() for loss in state.pending] == [6.0]
    assert state.optimizer == expected.optimizer
    assert list(state.model) == list(expected.model)
    for name, tensor in expected.model.items():
        assert torch.equal(state.model[name], tensor)
    assert torch.equal(state.random[0][0], torch.get_rng_state())
    assert told.warnings == []


def test_a_file_cut_or_changed_anywhere_is_noticed(two: Path) -> None:
    path = two / CHECKPOINT
    whole = path.read_bytes()
    header = range(checkpoint.HEADER + 5)
    for position in [*header, *range(checkpoint.HEADER, len(whole), 97)]:
        path.write_bytes(whole[:position])
        assert found(two) == (3, 1), position
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        assert found(two) == (3, 1), position
        assert not path.exists()
    path.write_bytes(whole + b"\0")
    assert found(two) == (3, 1)
    path.write_bytes(whole)
    assert found(two) == (6, 0)


@pytest.mark.parametrize("name", [CHECKPOINT, PREVIOUS_CHECKPOINT, HISTORY])
def test_a_file_that_cannot_be_read_now_is_not_lost(
    name: str, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two / HISTORY).touch()
    if name == PREVIOUS_CHECKPOINT:
        (two / CHECKPOINT).unlink()
    before = {file.name: file.read_bytes() for file in two.iterdir()}
    real = Path.stat if name == HISTORY else Path.open

    def stale(path: Path, *arguments: Any, **keywords: Any) -> Any:
        if path.name == name:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return real(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, real.__name__, stale)
        with pytest.raises(NormbenchError, match=f"Stale file handle .*{name}"):
            found(two)
    assert {file.name: file.read_bytes() for file in two.iterdir()} == before
    assert found(two) == (3 if name == PREVIOUS_CHECKPOINT else 6, 0)


def test_a_file_larger_than_the_memory_is_damaged(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (two / CHECKPOINT).open("wb") as file:
        file.truncate(2**38)  # a hole, which takes no place
    assert found(two) == (3, 1)
    (two / CHECKPOINT).write_bytes((two / PREVIOUS_CHECKPOINT).read_bytes())

    class Huge(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if size == -1:
                raise MemoryError
            return super().read(size)

    def opened(path: Path, *arguments: Any, real: Any = Path.open) -> Any:
        if path.name != CHECKPOINT:
            return real(path, *arguments)
        with real(path, *arguments) as file:
            return Huge(file.read())

    monkeypatch.setattr(Path, "open", opened)
    assert found(two) == (3, 1)


def test_the_history_of_another_run_is_noticed(tmp_path: Path) -> None:
    history = tmp_path / HISTORY
    own = '{"step": 1}\n'
    for text, step in ((own, 3), (own + "{", 3), ('{"step": 2}\n', 0), ("", 0)):
        history.write_text(own)
        checkpoint.save(tmp_path, dataclasses.replace(a_state(3), history=len(own)))
        (tmp_path / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
        history.write_text(text)
        assert found(tmp_path) == (step, int(step == 0)), text


def test_a_damaged_file_never_takes_the_place_of_a_whole_one(two: Path) -> None:
    (two / CHECKPOINT).write_bytes(b"")
    assert found(two) == (3, 1)
    checkpoint.save(two, a_state(9))
    (two / CHECKPOINT).write_bytes(b"")
    assert found(two) == (3, 1)
    (two / PREVIOUS_CHECKPOINT).write_bytes(b"")
    assert found(two) == (0, 1)
    assert found(two) == (0, 0)


def test_a_death_between_the_renames_costs_one_checkpoint(two: Path) -> None:
    (two / CHECKPOINT).replace(two / PREVIOUS_CHECKPOINT)
    assert found(two) == (6, 0)


def test_another_identity_is_none_to_go_on_from(two: Path) -> None:
    assert found(two, {"source": "elsewhere"}) == (0, 1)


def test_a_payload_that_runs_code_is_not_loaded(two: Path) -> None:
    import hashlib
    import pickle

    payload = pickle.dumps(os.getcwd)
    digest = hashlib.sha256(payload).digest()
    (two / CHECKPOINT).write_bytes(checkpoint.MAGIC + digest + payload)
    assert found(two) == (3, 1)


def test_a_run_that_another_finished_meanwhile_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = experiment.check
    others: list[RunRecord] = []

    def slow(*arguments: Any) -> None:
        monkeypatch.setattr(experiment, "check", check)
        others.append(experiment.run_one(CNN, Results(tmp_path)))
        check(*arguments)

    monkeypatch.setattr(experiment, "check", slow)
    assert experiment.run_one(CNN, Results(tmp_path), stop=after(1)) == others[0]


def test_a_record_of_other_code_is_done_again_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = experiment.run_one(CNN, Results(tmp_path))
    assert experiment.run_one(CNN, Results(tmp_path, redo_stale=True)) == first
    monkeypatch.setattr("normbench.records.source.source_hash", lambda: "other")
    assert experiment.run_one(CNN, Results(tmp_path)) == first
    again = experiment.run_one(CNN, Results(tmp_path, redo_stale=True))
    assert again.environment.source_hash == "other"
    assert again.metrics == first.metrics
    assert experiment.run_one(CNN, Results(tmp_path, redo_stale=True)) == again


LONG = [*SMALL["cnn"], "tracker=none", "budget=quick", "checkpoint.every=10"]


def training(results: Path, *overrides: str) -> subprocess.Popen[str]:
    arguments = ["train", *LONG, *overrides, "--results", str(results), "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "normbench", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[RunRecord, str]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return RunRecord.model_validate_json(out), errors


def wait_for(process: subprocess.Popen[str], seen: Callable[[], bool]) -> None:
    """Until something is seen of the process, which must not have ended by then."""
    until = time.monotonic() + 100
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_process_is_taken_up_by_the_same_command(tmp_path: Path) -> None:
    whole, _ = ended(training(tmp_path))
    results = tmp_path / "killed"
    folder = store.run_folder(results, whole.run_id)
    latest: tuple[int, int] | None = None

    def a_new_one() -> bool:
        try:
            status = (folder / CHECKPOINT).stat()
        except FileNotFoundError:
            return False
        return (status.st_ino, status.st_mtime_ns) != latest

    for _ in range(2):
        process = training(results)
        wait_for(process, a_new_one)
        process.kill()
        process.communicate()
        assert store.read(folder) is None
        if (folder / CHECKPOINT).exists():  # else it died between two renames
            status = (folder / CHECKPOINT).stat()
            latest = status.st_ino, status.st_mtime_ns
    finished, errors = ended(training(results))
    assert "going on from step" in errors
    assert outcome(results, finished) == outcome(tmp_path, whole)


@pytest.mark.slow
def test_ctrl_c_saves_the_run_and_says_where_it_goes_on(tmp_path: Path) -> None:
    process = training(tmp_path, "checkpoint.every=null")
    wait_for(process, lambda: any(p.stat().st_size for p in tmp_path.rglob(HISTORY)))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    told = errors.splitlines()[-1]
    assert told.startswith("interrupted; ")
    step = told.rsplit(" ", 1)[1]
    assert "Traceback" not in errors
    _, errors = ended(training(tmp_path, "checkpoint.every=null"))
    assert f"going on from step {step}" in errors


@pytest.mark.slow
def test_two_processes_do_one_run_once(tmp_path: Path) -> None:
    first = training(tmp_path)
    wait_for(first, lambda: any(tmp_path.rglob(HISTORY)))
    out, errors = training(tmp_path).communicate(timeout=60)
    finished, _ = ended(first)
    if out:  # it came when the other had ended
        assert RunRecord.model_validate_json(out) == finished
    else:
        assert "another process" in errors
    folder = store.run_folder(tmp_path, finished.run_id)
    steps = [row["step"] for row in store.read_history(folder)]
    assert steps == sorted(steps)
    assert json.loads((folder / store.RESULT).read_text())["status"] == "ok"
