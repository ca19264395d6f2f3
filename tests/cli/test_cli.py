"""The command line as a user sees it: output, files and exit codes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from conftest import SMALL, Command
from records_made import A_RECORD, written

import normbench
from normbench.cli import app
from normbench.cli.options import claims_to_read, expanded
from normbench.config.choices import choices

TINY = [*SMALL["cnn"], "budget.max_steps=2", "budget=smoke", "tracker=none"]


def test_help_lists_the_commands_and_version_prints_the_version(
    invoke: Command,
) -> None:
    shown = invoke("--help")
    assert shown.returncode == 0
    for name in ("train", "config", "list", "show", "results", "--install-completion"):
        assert name in shown.stdout
    assert "--results" in invoke("train", "--help").stdout
    assert invoke("--version").stdout.strip() == "0.1.0"
    assert normbench.__version__ == version("normbench") == "0.1.0"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_lost_output_is_an_error_and_a_reader_may_go_away(tmp_path: Path) -> None:
    def shell(script: str, *words: str) -> subprocess.CompletedProcess[str]:
        normbench = [sys.executable, "-m", "normbench"]
        return subprocess.run(
            ["sh", "-c", script, "sh", *normbench, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    written(tmp_path / "results" / "runs", A_RECORD)
    error = "error: standard output cannot be written: Bad file descriptor\n"
    for words in (["--version"], ["plot", "--help"], ["show", A_RECORD.run_id]):
        closed = shell('"$@" >&-', *words)
        assert (closed.returncode, closed.stderr) == (1, error), words
    first_line = shell('"$@" | head -1', "list", "data")
    assert (first_line.stdout.strip(), first_line.stderr) == ("data", "")


def commands() -> Iterator[Callable[..., None]]:
    """The function of every command."""
    for group in (app, *(added.typer_instance for added in app.registered_groups)):
        for registered in group.registered_commands:
            yield registered.callback


def test_every_option_with_a_path_expands_a_tilde() -> None:
    options = 0
    for command in commands():
        for name, hint in get_type_hints(command, include_extras=True).items():
            if "Path" in str(hint):
                (option,) = hint.__metadata__
                assert option.callback in {expanded, claims_to_read}, (
                    command.__name__,
                    name,
                )
                options += 1
    assert options > 20


def test_a_tilde_in_results_is_the_home_folder(invoke: Command, tmp_path: Path) -> None:
    message = f"--results {tmp_path}/mine is not a folder"
    for words, environment in (
        (["--results", "~/mine"], {}),
        ([], {"NORMBENCH_RESULTS": "~/mine"}),
    ):
        done = invoke("results", *words, HOME=str(tmp_path), **environment)
        assert done.returncode == 2
        assert message in done.stderr
    done = invoke("results", "--results", "~nobody-here/x")
    assert done.returncode == 2
    assert "there is no such home folder" in done.stderr


def test_train_show_and_results_print_the_same_record(
    invoke: Command, tmp_path: Path
) -> None:
    trained = invoke("train", "norm=group", "norm.num_groups=4", *TINY)
    assert trained.returncode == 0, trained.stderr
    last = trained.stdout.splitlines()[-1].split()
    assert last[0] == "run"
    run_id, folder = last[1], tmp_path / last[2]
    assert folder == tmp_path / "results" / "runs" / run_id[:2] / run_id
    # Some versions of filelock delete the lock file, others keep it.
    assert {f.name for f in folder.iterdir()} - {".lock"} == {
        "config.yaml",
        "history.jsonl",
        "items.safetensors.gz",
        "result.json",
    }

    shown = json.loads(invoke("show", run_id[:6], "--json").stdout)
    assert shown == json.loads((folder / "result.json").read_text())
    assert shown["run_id"] == run_id
    assert shown["status"] == "ok"
    assert shown["config"]["norm"]["num_groups"] == 4
    assert f"{shown['metrics']['test/error']:.4f}" in trained.stdout
    assert f"{shown['metrics']['test/error']:.4f}" in invoke("show", run_id).stdout

    listed = json.loads(invoke("results", "--json").stdout)
    assert listed == [shown]
    (row,) = csv.DictReader(io.StringIO(invoke("results", "--csv").stdout))
    assert row["run_id"] == run_id
    assert float(row["test/error"]) == shown["metrics"]["test/error"]
    assert row["norm.num_groups"] == "4"
    assert run_id in invoke("results", "--where", "norm=group").stdout
    assert run_id not in invoke("results", "--where", "norm=batch").stdout

    again = invoke("train", "norm.num_groups=4", "norm=group", *TINY, "--json")
    assert "finished already" in again.stderr
    assert json.loads(again.stdout) == shown


def test_config_prints_what_train_would_run(invoke: Command) -> None:
    printed = invoke("config", "task=transformer", "norm=layer", "batch_size=8")
    config = yaml.safe_load(printed.stdout)
    assert config["norm"]["name"] == "layer_position"
    assert config["norm_batch"] == 8
    same = ["batch_size=8", "norm=layer", "task=transformer"]
    assert json.loads(invoke("config", *same, "--json").stdout) == config


def test_list_names_every_choice(invoke: Command) -> None:
    for what in ("tasks", "data", "budgets", "trackers"):
        rows = json.loads(invoke("list", what, "--json").stdout)
        assert [row["name"] for row in rows] == list(choices(what.removesuffix("s")))
        assert all(row["description"] for row in rows), what
        table = invoke("list", what).stdout
        assert all(row["name"] in table for row in rows), what
    (row,) = json.loads(invoke("list", "tasks", "cnn", "--json").stdout)
    assert row["name"] == "cnn"


def test_list_norms_prints_a_line_per_norm_and_all_about_one(invoke: Command) -> None:
    table = invoke("list", "norms", COLUMNS="100").stdout.splitlines()
    names = [line.split()[0] for line in table[4:-2]]
    assert names == list(choices("norm"))
    assert max(map(len, table)) <= 100
    shown = invoke("list", "norms", "group", "layer").stdout
    for part in (
        "y = weight * (x - mean) / sqrt(var + eps) + bias",
        "  source         Wu & He 2018",
        "  tasks          cnn style transformer",
        "  norm.num_groups=8",
        "  channels per group; can be set instead of num_groups",
        "layer: LayerNorm as usual",
    ):
        assert part in shown
    wrong = invoke("list", "norms", "GN")
    assert "norm=GN is unknown; did you mean 'group'?" in wrong.stderr


WRONG: list[tuple[list[str], list[str]]] = [
    (["train", "norm=grop"], ["norm=grop", "'group'"]),
    (["train", "norm=group", "norm.num_groups=5"], ["num_groups", "5", "16"]),
    (["train", "batch_size=4000"], ["batch_size=4000", "3000"]),
    (["train", "batch_size=8", "norm_batch=3"], ["norm_batch=3", "8"]),
    (["train", "--module", "no_such_module"], ["module no_such_module"]),
    (["train", "--module", "wrong_syntax"], ["module wrong_syntax"]),
    (["train", "--module", "raises"], ["module raises"]),
    (["train", "--results", "file/runs"], ["--results file/runs"]),
    (["config", "--config-dir", "nowhere"], ["--config-dir nowhere"]),
    (["show", "abc"], ["abc", "results/runs"]),
    (["results"], ["results/runs"]),
    (["train", "--config-dir", "file"], ["--config-dir file"]),
]


def test_a_wrong_request_prints_up_to_three_lines_and_writes_nothing(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    files = {"file": "", "wrong_syntax.py": "def (", "raises.py": "1 / 0"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for arguments, words in WRONG:
        done = invoke(*arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == "", arguments
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ")
        assert 1 <= len(done.stderr.splitlines()) <= 3, done.stderr
        assert [word for word in words if word not in done.stderr] == [], done.stderr
        assert {file.name for file in tmp_path.iterdir()} == files.keys(), arguments


def test_a_run_that_diverges_exits_with_1(invoke: Command) -> None:
    diverged = invoke("train", "norm=none", "lr=1e30", "warmup=0.0", *TINY, "seed=3")
    assert diverged.returncode == 1
    assert "diverged" in diverged.stdout
    assert diverged.stdout.splitlines()[-1].startswith("run ")
    (listed,) = json.loads(invoke("results", "--json").stdout)
    assert listed["status"] == "diverged"
    assert listed["metrics"] == {"test/error": None}


def test_ctrl_c_ends_a_run_with_130_and_no_record(
    invoke: Command, tmp_path: Path
) -> None:
    def interrupt_once_it_trains() -> None:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("history.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_once_it_trains).start()
    long = ["tracker=none", "budget=full", "budget.epochs=1000"]
    done = invoke("train", *SMALL["cnn"], *long)
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert not list(tmp_path.rglob("result.json"))


MINE = """
from torch import Tensor
from normbench.norms import Norm


class Halve(Norm, name="halve"):
    def __init__(self, channels: int, *, by: float = 2.0) -> None:
        super().__init__(channels)
        self.by = by

    def forward(self, x: Tensor, mask=None, condition=None) -> Tensor:
        return x / self.by
"""


@pytest.mark.slow
def test_a_user_adds_a_norm_with_one_file_and_one_yaml(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "my_norms.py").write_text(MINE)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    (tmp_path / "mine" / "norm" / "halve.yaml").write_text(
        "# Half\nname: halve\nby: 4\n"
    )
    options = ["--config-dir", "mine", "--module", "my_norms"]
    done = command("train", "norm=halve", *TINY, *options, "--json")
    assert done.returncode == 0, done.stderr
    finished = json.loads(done.stdout)
    assert finished["config"]["norm"] == {"name": "halve", "by": 4.0}
    assert len(finished["environment"]["modules"]["my_norms"]) == 16
    listed = json.loads(command("list", "norms", *options[:2], "--json").stdout)
    assert "halve" in [norm["name"] for norm in listed]
    wrong = command("train", "norm=halve", "norm.by=much", *TINY, *options)
    assert wrong.returncode == 2
    assert "norm.by" in wrong.stderr


def test_completion_offers_groups_and_choices() -> None:
    script = Path(sys.executable).with_name("normbench")
    typed = {"COMP_WORDS": "normbench train norm=gro", "COMP_CWORD": "2"}
    completion = subprocess.run(
        [script],
        env=os.environ | {"_NORMBENCH_COMPLETE": "complete_bash"} | typed,
        capture_output=True,
        text=True,
    )
    assert completion.stdout.split() == ["norm=group", "norm=group_permuted"]


@pytest.mark.slow
def test_two_processes_do_not_do_the_same_run(tmp_path: Path) -> None:
    arguments = [*SMALL["cnn"], "tracker=none", "budget=quick"]
    first, second = (
        subprocess.Popen(
            [sys.executable, "-m", "normbench", "train", *arguments],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    codes = sorted([first.returncode, second.returncode])
    assert codes in ([0, 0], [0, 2]), outputs
    (result,) = tmp_path.rglob("result.json")
    steps = [
        json.loads(line)["step"]
        for line in result.with_name("history.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)
