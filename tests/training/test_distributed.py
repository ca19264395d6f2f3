"""Runs in several gloo processes, started by torchrun, equal the run in one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from conftest import SMALL
from data_made import picture

from normbench.config.composition import compose
from normbench.config.schema import RunRecord
from normbench.records.store import Results, all_records
from normbench.training.experiment import run_one

pytestmark = pytest.mark.slow

TINY = ["budget=smoke", "tracker=none", "device=cpu", "log_every=2", "batch_size=8"]
TINY += ["budget.max_steps=4"]


class Torchrun(Protocol):
    """Starts a command in several processes."""

    def __call__(
        self, *words: str, processes: int = 2, **environment: str
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def torchrun(tmp_path: Path) -> Torchrun:
    """Start `normbench train WORDS` in several processes, with records in `two`."""

    def start(
        *words: str, processes: int = 2, **environment: str
    ) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        line += [f"--nproc-per-node={processes}", "-m", "normbench", "train"]
        return subprocess.Popen(
            [*line, *words, "--results", str(tmp_path / "two")],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def output_of(process: subprocess.Popen[str], code: int = 0) -> str:
    """The output of a process, which must end with this exit code."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


def record_of(folder: Path) -> RunRecord:
    records, damaged = all_records(folder)
    assert damaged == []
    (record,) = records
    return record


@pytest.mark.parametrize(
    ("task", "words", "processes"),
    [
        ("cnn", ["norm=batch", "ema=0.5"], 2),
        ("cnn", ["norm=batch", "norm_batch=4", "clip=1"], 2),
        ("cnn", ["norm=batch", "norm_batch=4"], 4),
        ("cnn", ["norm=switchable", "precision=bf16"], 2),
        ("transformer", ["norm=batch", "task.long_batches=0.5", "norm_batch=2"], 2),
        ("transformer", ["norm=batch_masked", "accumulate=2"], 2),
        ("style", ["norm=batch_regularized"], 2),
    ],
)
def test_a_run_of_several_processes_is_the_run_of_one(
    task: str,
    words: list[str],
    processes: int,
    torchrun: Torchrun,
    tmp_path: Path,
) -> None:
    words = [*SMALL[task], *TINY, *words]
    process = torchrun(*words, processes=processes)
    output = output_of(process)
    two = record_of(tmp_path / "two")
    one = run_one(compose(words), Results(tmp_path / "one"))
    assert two.run_id == one.run_id
    assert two.environment.device == f"{processes} x cpu"
    assert two.environment.processes == processes
    assert two.environment.device_batch_size == 8 // processes
    assert output.count(f"run {two.run_id}") == 1
    # Running statistics of ghost batches are averaged in another order.
    ghosts = any(word.startswith("norm_batch") for word in words)
    rel = 0.02 if ghosts or "precision=bf16" in words else 1e-4
    assert two.metrics == pytest.approx(one.metrics, rel=rel, abs=0.02)
    assert two.metrics["train/loss"] == pytest.approx(
        one.metrics["train/loss"], rel=rel
    )
    histories = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for folder in ("two", "one")
        for path in (tmp_path / folder).glob("*/*/history.jsonl")
    ]
    losses = [[r["train/batch_loss"] for r in h if "lr" in r] for h in histories]
    assert losses[0] == pytest.approx(losses[1], rel=rel)


def test_each_process_reads_and_augments_its_own_images(
    torchrun: Torchrun, tmp_path: Path
) -> None:
    for i in range(48):
        picture(tmp_path / "images" / f"class{i % 2}" / f"{i}.png", seed=i)
    words = ["task=cnn", "task.width=8", *TINY, f"data.path={tmp_path / 'images'}"]
    words += ["data=folder", "data.size=16", "data.augment=[crop,flip]"]
    words += ["data.memory_gb=1e-9", "data.workers=1", "budget.epochs=2"]
    process = torchrun(*words)
    output_of(process)
    two = record_of(tmp_path / "two")
    one = run_one(compose(words), Results(tmp_path / "one"))
    assert two.facts == one.facts
    assert one.facts["skipped_images"] == 0
    assert two.metrics == pytest.approx(one.metrics, rel=1e-4, abs=1e-4)


FAULTY = """
import os

from normbench.errors import Incompatible
from normbench.norms.base import Norm


class FaultyNorm(Norm, name="faulty"):
    source = "nobody 2026"
    axes = "one sample, one channel, one position"
    honours_mask = True
    forwards = 0

    def forward(self, x, mask=None, condition=None):
        self.forwards += self.training
        if self.forwards == 3 and os.environ["RANK"] in os.environ["FAULTY"]:
            raise {error}("a cosmic ray")
        return x
"""


@pytest.mark.parametrize(
    ("rank", "error", "status"),
    [
        ("0", "ValueError", "failed"),
        ("1", "ValueError", "failed"),
        ("1", "Incompatible", "skipped"),
        ("01", "ValueError", "failed"),
    ],
)
def test_what_a_process_raises_ends_the_run_with_a_record(
    rank: str,
    error: str,
    status: str,
    torchrun: Torchrun,
    tmp_path: Path,
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY.format(error=error))
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    (tmp_path / "mine" / "norm" / "faulty.yaml").write_text("# Fails\nname: faulty\n")
    process = torchrun(
        *(*SMALL["cnn"], *TINY, "norm=faulty"),
        *("--config-dir", "mine", "--module", "faulty"),
        FAULTY=rank,
    )
    output_of(process, code=1)
    record = record_of(tmp_path / "two")
    assert record.status == status
    assert "a cosmic ray" in str(record.error)
    # The first process adds the error of another process only if it has lost it.
    assert ("process 1" in str(record.error)) == (rank == "1")
    assert "lost the first" not in str(record.error)


BROKEN = '''
from normbench.probes.base import PROBES


@PROBES("broken")
def broken(trained):
    """Fails."""
    raise ValueError("a cosmic ray")
'''


def test_an_error_of_the_first_process_alone_is_recorded(
    torchrun: Torchrun, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    process = torchrun(*(*SMALL["cnn"], *TINY, "probes=[broken]", "--module", "broken"))
    output_of(process, code=1)
    record = record_of(tmp_path / "two")
    assert record.status == "failed"
    assert record.steps == 4
    assert str(record.error).startswith("Traceback")
    assert str(record.error).endswith("ValueError: a cosmic ray\n")


def test_several_processes_have_one_wandb_run(
    torchrun: Torchrun, tmp_path: Path
) -> None:
    words = [word for word in TINY if word != "tracker=none"]
    process = torchrun(*SMALL["cnn"], *words, "tracker=wandb", "tracker.mode=offline")
    output_of(process)
    assert record_of(tmp_path / "two").status == "ok"
    assert len(list((tmp_path / "two" / "wandb").glob("offline-run-*"))) == 1


def test_several_processes_refuse_a_request_once(
    torchrun: Torchrun, tmp_path: Path
) -> None:
    (tmp_path / "mark_exit.py").write_text(
        "import atexit, pathlib\natexit.register(pathlib.Path('python exited').touch)\n"
    )
    process = torchrun("batch_size=9", "tracker=none", "--module", "mark_exit")
    output = output_of(process, code=1)  # torchrun has its own exit code
    assert output.count("error: batch_size=9") == 1
    assert "exitcode  : 2" in output
    assert not (tmp_path / "two").exists()
    # Python must not run its own exit, in which threads of gloo sometimes abort it.
    assert not (tmp_path / "python exited").exists()


INTERRUPTED = """
import itertools
import sys
from pathlib import Path
from threading import Thread

from normbench.config.composition import compose
from normbench.training.distributed import joined, run_together
from normbench.errors import Stopped
from normbench.records.store import Results

results, stop_after, *words = sys.argv[1:]
calls = itertools.count(1)
with joined() as world:
    try:
        run_together(
            compose(words),
            Results(Path(results)),
            world,
            stop=lambda: next(calls) == int(stop_after),
        )
    except Stopped:
        pass
if sys.platform == "linux":
    # Threads of gloo that are left at exit may abort the process.
    threads = [(t / "comm").read_text() for t in Path("/proc/self/task").iterdir()]
    assert not [name for name in threads if name.startswith("pt_gloo")], threads
"""


def test_a_stopped_run_resumes_to_the_bit(tmp_path: Path) -> None:
    """The losses of steps 4 and 5 are logged after the run resumed."""
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    words = [*SMALL["cnn"], *TINY, "log_every=3", "budget.max_steps=6", "accumulate=2"]
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line += ["--nproc-per-node=2", "interrupted.py"]
    for results, stop_after in (("whole", "0"), ("halves", "5"), ("halves", "0")):
        subprocess.run(
            [*line, results, stop_after, *words],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            timeout=600,
        )
        checkpoints = list((tmp_path / results).glob("*/*/checkpoint.pt"))
        assert len(checkpoints) == (1 if stop_after == "5" else 0)
    whole, halves = record_of(tmp_path / "whole"), record_of(tmp_path / "halves")
    assert halves.metrics == whole.metrics
    histories = [
        path.read_text()
        for folder in ("whole", "halves")
        for path in (tmp_path / folder).glob("*/*/history.jsonl")
    ]
    assert histories[0] == histories[1]
    assert histories[0].count("batch_loss") == 2


@pytest.fixture
def endless(
    torchrun: Torchrun, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """torchrun and the ids of its two processes, during a run that would take hours."""
    process = torchrun(
        *SMALL["cnn"], *TINY, "budget.epochs=1000", "budget.max_steps=100000",
        "checkpoint.every=1",
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not list((tmp_path / "two").glob("*/*/checkpoint.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    by_rank = {}
    for child in map(int, children.split()):
        variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        ranks = [v.removeprefix("RANK=") for v in variables if v.startswith("RANK=")]
        if ranks:
            by_rank[int(ranks[0])] = child
    yield process, [by_rank[0], by_rank[1]]
    if process.poll() is None:  # torchrun does not end its processes if it is killed
        for child in by_rank.values():
            os.kill(child, signal.SIGKILL)
        process.kill()
    process.communicate()


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@on_linux
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_leaves_a_failed_record(
    rank: int, endless: tuple[subprocess.Popen[str], list[int]], tmp_path: Path
) -> None:
    process, ranks = endless
    os.kill(ranks[rank], signal.SIGKILL)
    output_of(process, code=1)
    failed = record_of(tmp_path / "two")
    assert failed.status == "failed"
    assert failed.environment.processes == 2
    assert ("lost the first" in str(failed.error)) == (rank == 0)


@on_linux
def test_processes_stopped_by_a_signal_leave_a_checkpoint(
    endless: tuple[subprocess.Popen[str], list[int]], tmp_path: Path
) -> None:
    process, _ = endless
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=600)
    assert "the same command continues from step" in output
    assert all_records(tmp_path / "two") == ([], [])
    assert len(list((tmp_path / "two").glob("*/*/checkpoint.pt"))) == 1
