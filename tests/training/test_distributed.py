"""Data parallel, with real processes on gloo: one run, whatever their number."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.distributed as dist
from conftest import SMALL, Command
from data_made import picture
from torch import Tensor, nn

from normbench.config.composition import compose
from normbench.config.schema import RunRecord
from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, Ghost, Norm, make, names
from normbench.norms.statistics import batch_moments, shared_by
from normbench.records.store import Results, all_records
from normbench.training import distributed, experiment
from normbench.training.distributed import World, run_together
from normbench.training.experiment import run_one

SHARING = [name for name in names() if REGISTRY.get(name).uses_other_samples]
SAMPLES, C, T = 8, 16, 6
CASES = [(name, masked) for name in SHARING for masked in (False, True)]

Result = dict[str, Tensor]


def case(name: str, masked: bool) -> tuple[Norm, Tensor, Tensor | None, Tensor]:
    """A norm in float64, an input far from 0, a mask with unequal shares, weights."""
    torch.manual_seed(0)
    norm = make(name, C).double().train()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.4, 0.9)
    scale = torch.linspace(0.5, 3, SAMPLES, dtype=torch.float64)[:, None, None]
    x = torch.randn(SAMPLES, C, T, dtype=torch.float64) * scale + 2
    weights = torch.randn(SAMPLES, C, T, dtype=torch.float64)
    lengths = torch.tensor([6, 6, 5, 6, 1, 2, 1, 1])
    return norm, x, torch.arange(T) < lengths[:, None] if masked else None, weights


def step(
    module: nn.Module, norm: Norm, x: Tensor, mask: Tensor | None, weights: Tensor
) -> Result:
    """Two forwards and backwards of a mean loss: output, gradients, buffers."""
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        y = module(leaf, mask)
        loss = (y * weights).sum() / len(x)
        if norm.penalty is not None:
            loss, norm.penalty = loss + norm.penalty, None
        loss.backward()
    assert leaf.grad is not None
    result = {"output": y.detach(), "input gradient": leaf.grad}
    for key, parameter in norm.named_parameters():
        assert parameter.grad is not None
        result[f"gradient of {key}"] = parameter.grad
    return result | dict(norm.named_buffers())


def far_from_zero() -> tuple[Tensor, Tensor]:
    """Values in float32 whose mean is large, and a mask with unequal shares."""
    x = torch.randn(SAMPLES, 3, 1000, generator=torch.Generator().manual_seed(0)) + 1e4
    lengths = torch.tensor([1000, 900, 800, 700, 60, 50, 40, 30])
    return x, torch.arange(1000) < lengths[:, None]


def work(rank: int, folder: Path, processes: int) -> None:
    """Write what one of the processes computes in every case, shared and not."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    share = SAMPLES // processes
    mine = slice(rank * share, (rank + 1) * share)
    results: dict[str, Result] = {}
    for name, masked in CASES:
        norm, x, mask, weights = case(name, masked)
        own_mask = None if mask is None else mask[mine]
        for group in (dist.group.WORLD, None):
            twin = copy.deepcopy(norm)
            module = Ghost(twin, SAMPLES if group else share)
            key = f"{name} {masked} {'shared' if group else 'alone'}"
            with shared_by(group, processes):
                results[key] = step(module, twin, x[mine], own_mask, weights[mine])
    x, real = far_from_zero()
    for masked in (False, True):
        own_mask = real[mine] if masked else None
        with shared_by(dist.group.WORLD, processes):
            count = int(real.sum()) if masked else real.numel()
            mean, var = batch_moments(x[mine], own_mask, count)
        results[f"far {masked}"] = {"mean": mean, "var": var}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """What two processes with four samples each computed."""
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(work, (folder, 2), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def joined_parts(parts: list[Result]) -> Result:
    """The result of the whole batch, from those of its shares."""
    whole = {}
    for key in parts[0]:
        values = torch.stack([part[key].double() for part in parts])
        if key == "output":
            whole[key] = values.flatten(0, 1)
        elif key == "input gradient":  # of the mean of the processes' losses
            whole[key] = values.flatten(0, 1) / len(parts)
        else:
            whole[key] = values.mean(0)
            if not key.startswith("gradient"):
                torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    return whole


def test_two_times_four_samples_are_one_times_eight(
    parts: list[dict[str, Result]],
) -> None:
    for name, masked in CASES:
        norm, x, mask, weights = case(name, masked)
        expected = step(norm, norm, x, mask, weights)
        shared = joined_parts([part[f"{name} {masked} shared"] for part in parts])
        assert shared.keys() == expected.keys()
        for key, value in expected.items():
            where = f"{key} of {name}, masked: {masked}"
            torch.testing.assert_close(
                shared[key], value.double(), rtol=1e-10, atol=1e-11, msg=where
            )


def test_without_sharing_they_are_ghost_batches(parts: list[dict[str, Result]]) -> None:
    for name, masked in CASES:
        alone = [part[f"{name} {masked} alone"] for part in parts]
        where = f"{name}, masked: {masked}"
        norm, x, mask, weights = case(name, masked)
        whole = step(norm, norm, x, mask, weights)["output"]
        outputs = torch.cat([part["output"] for part in alone])
        assert (outputs - whole).abs().max() > 1e-3, where
        for part, mine in zip(alone, (slice(4), slice(4, 8)), strict=True):
            norm, x, mask, weights = case(name, masked)
            own_mask = None if mask is None else mask[mine]
            expected = step(norm, norm, x[mine], own_mask, weights[mine])
            if name == "power":  # of the mean of the processes' losses
                expected["nu"] = expected["nu"] / 2
            for key, value in expected.items():
                torch.testing.assert_close(part[key], value, msg=f"{key} of {where}")


def test_a_variance_survives_a_large_mean(parts: list[dict[str, Result]]) -> None:
    """A difference of sums of squares has no digits in float32: mean 1e4, sd 1."""
    x, mask = far_from_zero()
    for masked in (False, True):
        real = x.double().transpose(0, 1)[:, mask if masked else torch.ones_like(mask)]
        for part in parts:
            moments = part[f"far {masked}"]
            torch.testing.assert_close(
                moments["var"].double(), real.var(1, correction=0), rtol=1e-3, atol=0
            )
            torch.testing.assert_close(
                moments["mean"].double(), real.mean(1), rtol=1e-6, atol=0
            )
    naive = x.square().mean() - x.mean().square()
    assert abs(naive.item() - 1) > 0.1


# Whole runs.

TINY = ["budget=smoke", "tracker=none", "device=cpu", "log_every=2", "batch_size=8"]
TINY += ["budget.max_steps=4"]


@pytest.fixture
def torchrun(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
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


def record_of(folder: Path) -> RunRecord:
    records, damaged = all_records(folder)
    assert damaged == []
    [found] = records
    return found


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 900
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "words", "processes"),
    [
        ("cnn", ["norm=batch"], 2),
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
    torchrun: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    words = [*SMALL[task], *TINY, *words]
    process = torchrun(*words, processes=processes)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    two = record_of(tmp_path / "two")
    one = run_one(compose(words), Results(tmp_path / "one"))
    assert two.run_id == one.run_id
    assert two.environment.device == f"{processes} x cpu"
    assert two.environment.processes == processes
    assert two.environment.device_batch_size == 8 // processes
    assert output.count(f"run {two.run_id}") == 1
    # Running statistics of ghost batches are weighed in another order.
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


@pytest.mark.slow
def test_each_process_reads_and_augments_its_own_images(
    torchrun: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    for i in range(48):
        picture(tmp_path / "images" / f"class{i % 2}" / f"{i}.png", seed=i)
    words = ["task=cnn", "task.width=8", *TINY, f"data.path={tmp_path / 'images'}"]
    words += ["data=folder", "data.size=16", "data.augment=[crop,flip]"]
    words += ["data.memory_gb=1e-9", "data.workers=1", "budget.epochs=2"]
    process = torchrun(*words)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    two, one = (
        record_of(tmp_path / "two"),
        run_one(compose(words), Results(tmp_path / "one")),
    )
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


@pytest.mark.slow
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
    torchrun: Callable[..., subprocess.Popen[str]],
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
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    record = record_of(tmp_path / "two")
    assert record.status == status
    assert "a cosmic ray" in str(record.error)
    # The first process adds the error of another only where it has lost that one.
    assert ("process 1" in str(record.error)) == (rank == "1")
    assert "lost the first" not in str(record.error)


BROKEN = '''
from normbench.probes.base import PROBES


@PROBES("broken")
def broken(trained):
    """Fails."""
    raise ValueError("a cosmic ray")
'''


@pytest.mark.slow
def test_what_the_first_process_raises_alone_is_recorded_as_its_own(
    torchrun: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    process = torchrun(*(*SMALL["cnn"], *TINY, "probes=[broken]", "--module", "broken"))
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    record = record_of(tmp_path / "two")
    assert record.status == "failed"
    assert record.steps == 4
    assert str(record.error).startswith("Traceback")
    assert str(record.error).endswith("ValueError: a cosmic ray\n")


@pytest.mark.slow
def test_several_processes_have_one_mirror(
    torchrun: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    words = [word for word in TINY if word != "tracker=none"]
    process = torchrun(*SMALL["cnn"], *words, "tracker=wandb", "tracker.mode=offline")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert record_of(tmp_path / "two").status == "ok"
    assert len(list((tmp_path / "two" / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.slow
def test_several_processes_refuse_a_request_once(
    torchrun: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "tells_its_end.py").write_text(
        "import atexit, pathlib\natexit.register(pathlib.Path('taken down').touch)\n"
    )
    process = torchrun("batch_size=9", "tracker=none", "--module", "tells_its_end")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1  # torchrun's, whatever its processes end with
    assert output.count("error: batch_size=9") == 1
    assert "exitcode  : 2" in output
    assert not (tmp_path / "two").exists()
    # Where Python is taken down, threads of gloo abort it at times.
    assert not (tmp_path / "taken down").exists()


def test_the_first_of_several_processes_leaves_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "LEAVING", timedelta(seconds=600))
    stores = [dist.FileStore(str(tmp_path / "store"), 2) for _ in range(2)]
    first, second = (World(rank, 2, store=store) for rank, store in enumerate(stores))
    waiting = Thread(target=second.leave_after_first)
    waiting.start()
    until(lambda: 1 in first.notes("leaving"))
    assert waiting.is_alive()
    first.leave_after_first()
    waiting.join(600)
    assert not waiting.is_alive()


def test_a_first_process_that_does_not_leave_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "LEAVING", timedelta(seconds=0.1))
    World(1, 2, store=dist.FileStore(str(tmp_path / "store"), 2)).leave_after_first()


@pytest.mark.parametrize("rank", [0, 1])
def test_only_train_is_for_torchrun(
    rank: int, command: Command, tmp_path: Path
) -> None:
    done = command("sweep", "seed=0,1", TORCHELASTIC_RUN_ID="none", RANK=str(rank))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: torchrun starts") == (rank == 0)
    assert list(tmp_path.iterdir()) == []


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
asked = itertools.count(1)
with joined() as world:
    try:
        run_together(
            compose(words),
            Results(Path(results)),
            world,
            stop=lambda: next(asked) == int(stop_after),
        )
    except Stopped:
        pass
if sys.platform == "linux":
    # A thread that meets the end of the interpreter may abort the process.
    threads = [(t / "comm").read_text() for t in Path("/proc/self/task").iterdir()]
    assert not [name for name in threads if name.startswith("pt_gloo")], threads
"""


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """To the bit; the losses of steps 4 and 5 are told after it went on."""
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
        found = list((tmp_path / results).glob("*/*/checkpoint.pt"))
        assert len(found) == (stop_after == "5")
    whole, halves = record_of(tmp_path / "whole"), record_of(tmp_path / "halves")
    assert halves.metrics == whole.metrics
    histories = [
        path.read_text()
        for folder in ("whole", "halves")
        for path in (tmp_path / folder).glob("*/*/history.jsonl")
    ]
    assert histories[0] == histories[1]
    assert histories[0].count("batch_loss") == 2


class Pair:
    """A group that no norm here may need."""

    def size(self) -> int:
        return 2


def test_a_norm_that_does_not_share_what_it_should_is_refused() -> None:
    ghost = Ghost(make("instance", C), SAMPLES)
    x = torch.randn(SAMPLES // 2, C, T)
    with shared_by(Pair(), 2):  # type: ignore[arg-type]
        with pytest.raises(Incompatible, match="or set norm_batch=4"):
            ghost(x)
        ghost.eval()(x)


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> World:
    """The first of two processes, of which the second does nothing."""
    monkeypatch.setattr(World, "send", lambda world, message: None)
    monkeypatch.setattr(World, "gather", lambda world, value: [value])
    monkeypatch.setattr(World, "neighbours", lambda world, count: Pair())
    return World(size=2)


def test_it_is_refused_before_its_network_is_compiled(
    first_of_two: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REGISTRY.get("instance"), "uses_other_samples", True)
    monkeypatch.setattr(experiment, "require_compiler", lambda device: None)
    words = [*SMALL["cnn"], *TINY, "norm=instance", "compile=true"]
    refused = run_together(compose(words), Results(tmp_path), first_of_two)
    assert refused.status == "skipped"
    assert "takes its statistics in one process" in str(refused.error)


@pytest.fixture
def endless(
    torchrun: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Two processes in the midst of a run that would take hours, and their ids."""
    process = torchrun(
        *SMALL["cnn"], *TINY, "budget.epochs=1000", "budget.max_steps=100000",
        "checkpoint.every=1",
    )  # fmt: skip
    until(lambda: bool(list((tmp_path / "two").glob("*/*/checkpoint.pt"))))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    by_rank = {}
    for child in map(int, children.split()):
        variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        ranks = [v.removeprefix("RANK=") for v in variables if v.startswith("RANK=")]
        if ranks:
            by_rank[int(ranks[0])] = child
    yield process, [by_rank[0], by_rank[1]]
    process.kill()
    process.communicate()


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_leaves_a_failed_record(
    rank: int, endless: tuple[subprocess.Popen[str], list[int]], tmp_path: Path
) -> None:
    process, ranks = endless
    os.kill(ranks[rank], signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    failed = record_of(tmp_path / "two")
    assert failed.status == "failed"
    assert failed.environment.processes == 2
    assert ("lost the first" in str(failed.error)) == (rank == 0)


@pytest.mark.slow
@on_linux
def test_processes_that_are_told_to_stop_leave_a_checkpoint(
    endless: tuple[subprocess.Popen[str], list[int]], tmp_path: Path
) -> None:
    process, _ = endless
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=600)
    assert "the same command goes on from step" in output
    assert all_records(tmp_path / "two") == ([], [])
    assert len(list((tmp_path / "two").glob("*/*/checkpoint.pt"))) == 1


def test_shares_that_are_not_equal_are_refused(
    first_of_two: World, tmp_path: Path
) -> None:
    for words, message in (
        (["batch_size=9"], "batch_size=9 .* choose a multiple of 2"),
        (["batch_size=8", "accumulate=8"], "1 samples at a time"),
        (["batch_size=12", "norm_batch=4"], "norm_batch=4 neither divides the 6"),
    ):
        config = compose(["task=cnn", "tracker=none", *words])
        with pytest.raises(RequestError, match=message):
            run_together(config, Results(tmp_path / "runs"), first_of_two)
    assert not (tmp_path / "runs").exists()


def test_each_process_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    second = World(rank=1, size=2, local_rank=1, local_size=2)
    assert second.device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(RequestError, match="2 processes need as many cuda devices"):
        second.device(torch.device("cuda"))
    with pytest.raises(RequestError, match="2 processes; device=cuda gives"):
        second.device(torch.device("cuda:1"))
    with pytest.raises(RequestError, match="device=mps is for one process"):
        World(rank=1, size=2, local_size=1).device(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert second.device(torch.device("cuda")) == torch.device("cuda:1")
