"""What the processes of a run agree on, tested without torchrun."""

import time
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.distributed as dist
from conftest import SMALL, Command

from normbench.config.composition import compose
from normbench.errors import Incompatible, RequestError
from normbench.norms import REGISTRY, Ghost, make
from normbench.norms.sharing import shared_by
from normbench.records.store import Results
from normbench.training import distributed, experiment
from normbench.training.distributed import World, run_together


class Pair:
    """A process group of size 2 that cannot communicate."""

    def size(self) -> int:
        return 2


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> World:
    """The first of two processes; the second does not exist."""
    monkeypatch.setattr(World, "send", lambda world, message: None)
    monkeypatch.setattr(World, "gather", lambda world, value: [value])
    monkeypatch.setattr(World, "neighbours", lambda world, count: Pair())
    return World(size=2)


def test_a_norm_that_does_not_share_its_statistics_is_refused() -> None:
    ghost = Ghost(make("instance", 16), 8)
    x = torch.randn(4, 16, 6)
    with shared_by(Pair(), 2):  # type: ignore[arg-type]  # stands in
        with pytest.raises(Incompatible, match="or set norm_batch=4"):
            ghost(x)
        ghost.eval()(x)


def test_a_norm_that_does_not_share_is_refused_before_compilation(
    first_of_two: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REGISTRY.get("instance"), "uses_other_samples", True)
    monkeypatch.setattr(experiment, "require_compiler", lambda device: None)
    words = [*SMALL["cnn"], "budget=smoke", "tracker=none", "device=cpu"]
    words += ["batch_size=8", "norm=instance", "compile=true"]
    record = run_together(compose(words), Results(tmp_path), first_of_two)
    assert record.status == "skipped"
    assert "takes its statistics in one process" in str(record.error)


def test_shares_that_are_not_equal_are_refused(
    first_of_two: World, tmp_path: Path
) -> None:
    for words, message in (
        (["batch_size=9"], "batch_size=9 .* is a multiple of 2"),
        (["batch_size=8", "accumulate=8"], "micro-batches of 1 samples"),
        (["batch_size=12", "norm_batch=4"], "norm_batch=4 must divide 6"),
    ):
        config = compose(["task=cnn", "tracker=none", *words])
        with pytest.raises(RequestError, match=message):
            run_together(config, Results(tmp_path / "runs"), first_of_two)
    assert not (tmp_path / "runs").exists()


def test_each_process_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    second = World(rank=1, size=2, local_rank=1, local_size=2)
    assert second.device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(RequestError, match="2 processes need 2 cuda devices"):
        second.device(torch.device("cuda"))
    with pytest.raises(RequestError, match="2 processes; set device=cuda"):
        second.device(torch.device("cuda:1"))
    with pytest.raises(RequestError, match="device=mps supports one process"):
        World(rank=1, size=2, local_size=1).device(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert second.device(torch.device("cuda")) == torch.device("cuda:1")


def test_the_first_of_several_processes_exits_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "EXIT_TIMEOUT", timedelta(seconds=600))
    stores = [dist.FileStore(str(tmp_path / "store"), 2) for _ in range(2)]
    first, second = (World(rank, 2, store=store) for rank, store in enumerate(stores))
    waiting = Thread(target=second.wait_before_exit)
    waiting.start()
    while 1 not in first.notes("leaving"):
        assert waiting.is_alive()
        time.sleep(0.01)
    assert waiting.is_alive()
    first.wait_before_exit()
    waiting.join(600)
    assert not waiting.is_alive()


def test_the_wait_for_the_first_process_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "EXIT_TIMEOUT", timedelta(seconds=0.1))
    World(1, 2, store=dist.FileStore(str(tmp_path / "store"), 2)).wait_before_exit()


@pytest.mark.parametrize("rank", [0, 1])
def test_only_train_is_for_torchrun(
    rank: int, command: Command, tmp_path: Path
) -> None:
    done = command("sweep", "seed=0,1", TORCHELASTIC_RUN_ID="none", RANK=str(rank))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: torchrun can start only") == (rank == 0)
    assert list(tmp_path.iterdir()) == []
