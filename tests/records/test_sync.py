"""Upload of offline runs by wandb's own client to a server on 127.0.0.1.

The tests compare what the server received with the record.
"""

import json
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Command, Run
from wandb_server import Received, serving

from normbench.config.composition import compose
from normbench.config.schema import RunRecord
from normbench.errors import Stopped
from normbench.records import store
from normbench.records.store import Results
from normbench.records.sync import offline_runs
from normbench.training.experiment import run_one

OFFLINE = [*SMALL["cnn"], "tracker=wandb", "tracker.mode=offline"]
RUNS = Path("results/runs")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where `command` finds the runs."""
    return tmp_path / RUNS


def by_step(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the values logged at each optimiser step, without W&B's keys (_...)."""
    steps: dict[int, dict[str, Any]] = {}
    for row in rows:
        logged = {k: v for k, v in row.items() if v is not None and k[0] != "_"}
        steps.setdefault(row["step"], {}).update(logged)
    return steps


def assert_equals_the_record(
    received: Received, finished: RunRecord, results: Path
) -> None:
    config = finished.config.model_dump(mode="json")
    assert {key: received.config[key] for key in config} == config
    rows = store.read_history(store.run_folder(results, finished.run_id))
    assert by_step(received.history) == by_step(rows)
    assert by_step(rows).keys() == set(range(1, 11))
    summary = {k: v for k, v in received.summary.items() if k[0] != "_"}
    table = json.loads(received.files[summary.pop("results")["path"]])
    least = {
        f"min/{key}": min(row[key] for row in rows if key in row)
        for key in finished.metrics
        if key.startswith("val/")
    }
    assert summary == {"step": 10, **finished.metrics, **finished.probes, **least}
    (row,) = table["data"]
    assert dict(zip(table["columns"], row, strict=True)) == {
        "run_id": finished.run_id,
        "task": "cnn",
        "data": "mnist5k",
        "norm": "batch",
        "reparam": "none",
        "batch_size": 32,
        "norm_batch": 32,
        "lr": finished.config.lr,
        "seed": 0,
        **finished.metrics,
    }
    assert received.job_type == "cnn"
    assert received.tags == ["norm:batch", "bs:32"]
    assert received.group == "cnn-mnist5k"
    assert received.exit_codes[-1] == 0


def test_the_server_receives_what_the_record_says(
    run: Run, command: Command, results: Path
) -> None:
    probes = "probes=[statistic_noise]"
    finished = run(*OFFLINE, probes, "evaluations=3", results=results)
    assert finished.probes
    (folder,) = offline_runs(results).waiting
    with serving() as server:
        listed = command("sync", "--dry-run")
        assert listed.returncode == 0, listed.stderr
        assert folder.name in listed.stdout
        assert "1 would be uploaded" in listed.stdout
        assert server.requests == 0

        done = command("sync", **server.environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1 uploaded, 0 failed\n"
        assert server.runs.keys() == {finished.run_id}
        assert_equals_the_record(server.runs[finished.run_id], finished, results)

        before = server.requests
        again = command("sync", **server.environment)
        assert again.returncode == 0
        assert "1 already uploaded" in again.stdout
        assert server.requests == before


@pytest.mark.slow
@pytest.mark.parametrize("refused", ["/graphql", "/files"])
def test_what_the_server_refuses_has_failed_and_is_tried_again(
    refused: str, run: Run, command: Command, results: Path
) -> None:
    finished = run(*OFFLINE, results=results)
    with serving(refused) as server:
        failed = command("sync", **server.environment)
        assert server.requests > 0
    assert failed.returncode == 1
    assert failed.stdout == "0 uploaded, 1 failed\n"
    assert failed.stderr.startswith("error: ")
    assert "tries the failed uploads again" in failed.stderr
    with serving() as server:
        done = command("sync", **server.environment)
        assert done.stdout == "1 uploaded, 0 failed\n"
        assert_equals_the_record(server.runs[finished.run_id], finished, results)


def test_a_run_taken_up_again_is_uploaded_as_one(
    command: Command, results: Path
) -> None:
    config = compose(["budget=smoke", *OFFLINE, "evaluations=1"])
    asked: list[int] = []

    def stop() -> bool:
        asked.append(len(asked))
        return len(asked) == 5

    with pytest.raises(Stopped):
        run_one(config, Results(results), stop=stop)
    time.sleep(1.1)  # wandb names a folder by the second
    finished = run_one(config, Results(results))
    first, second = offline_runs(results).waiting
    assert first.name < second.name
    with serving() as server:
        done = command("sync", **server.environment)
        assert done.stdout == "2 uploaded, 0 failed\n", done.stderr
        assert_equals_the_record(server.runs[finished.run_id], finished, results)


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up(
    run: Run, command: Command, results: Path
) -> None:
    run(*OFFLINE, results=results)
    with socket.create_server(("127.0.0.1", 0)) as silent, serving() as server:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        where = server.environment | {"WANDB_BASE_URL": url}
        failed = command("sync", "--timeout", "5", **where)
    assert failed.returncode == 1
    assert failed.stdout == "0 uploaded, 1 failed\n"
    assert "nothing was uploaded for 5 seconds" in failed.stderr


def test_it_takes_only_runs_of_normbench_that_have_ended_and_needs_a_key(
    run: Run, command: Command, invoke: Command, results: Path, tmp_path: Path
) -> None:
    finished = run(*OFFLINE, "budget.max_steps=2", results=results)
    (folder,) = offline_runs(results).waiting
    url = "http://127.0.0.1:9"
    for key in ("", "short"):
        home = str(tmp_path)
        done = command("sync", WANDB_API_KEY=key, WANDB_BASE_URL=url, HOME=home)
        assert (done.returncode, done.stdout) == (1, "")
        assert "wandb login" in done.stderr
        assert len(done.stderr.splitlines()) <= 3
    for name in ("offline-run-20260101_000000-abc", "offline-run-mine"):
        foreign = folder.with_name(name)
        shutil.copytree(folder, foreign)
        (foreign / f"run-{finished.run_id}.wandb").rename(foreign / "run-abc.wandb")
    (folder.with_name(f"offline-run-20260101_000001-{finished.run_id}")).mkdir()
    with store.RunWriter(results, finished.run_id):
        assert offline_runs(results).running == [folder]
        done = invoke("sync")
        assert "nothing to upload" in done.stdout
        assert "1 still running" in done.stdout
    assert offline_runs(results).waiting == [folder]


@pytest.mark.slow
def test_folders_in_wandb_dir_and_in_the_results_are_uploaded(
    command: Command, results: Path, tmp_path: Path
) -> None:
    """The project is that of the run, even if WANDB_PROJECT has changed since."""
    variables = {"WANDB_DIR": "mirror", "WANDB_PROJECT": "first"}
    tiny = ["train", *SMALL["cnn"], "budget.max_steps=2"]
    command(*tiny, "tracker.project=second")
    command(*tiny, "seed=1", **variables)
    (folder,) = (tmp_path / "mirror" / "wandb").glob("offline-run-*")
    done = command("sync", "--dry-run", WANDB_DIR="mirror")
    assert "2 would be uploaded" in done.stdout
    assert str(folder.relative_to(tmp_path)) in done.stdout
    assert "1 would be uploaded" in command("sync", "--dry-run").stdout
    with serving() as server:
        late = {"WANDB_DIR": "mirror", "WANDB_PROJECT": "x", "WANDB_MODE": "offline"}
        done = command("sync", **server.environment, **late)
        assert done.stdout == "2 uploaded, 0 failed\n", done.stderr
        projects = [run.config["tracker"]["project"] for run in server.runs.values()]
        assert sorted(projects) == ["first", "second"]
        assert server.projects == {"first", "second"}
    assert {path.parent.name for path in offline_runs(results).synced} == {"wandb"}


def test_nothing_to_upload_is_no_error_and_a_wrong_folder_is_one(
    invoke: Command, results: Path
) -> None:
    results.mkdir(parents=True)
    done = invoke("sync")
    assert done.returncode == 0
    assert done.stdout == f"nothing to upload in {RUNS / 'wandb'}\n"
    done = invoke("sync", WANDB_DIR="mirror")
    both = f"{RUNS / 'wandb'} and {Path('mirror') / 'wandb'}"
    assert (done.returncode, done.stdout) == (0, f"nothing to upload in {both}\n")
    done = invoke("sync", WANDB_DIR="~nosuch/x")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(
        "error: WANDB_DIR=~nosuch/x is in a home folder that does not exist; "
    )
    assert len(done.stderr.splitlines()) == 1
    done = invoke("sync", "--results", "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --results nowhere")
