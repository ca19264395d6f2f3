"""One data-parallel run in several processes, as torchrun starts them.

The first process (rank 0) does what `run_one` does, and the others only train. Messages
go through gloo on the CPU, so that no process waits for a device.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from normbench.config.schema import RunConfig, RunRecord, Status
from normbench.errors import Busy, NormbenchError, RequestError, Stopped
from normbench.records.store import Results, read, run_folder
from normbench.tasks.base import Task
from normbench.training.checkpoint import State
from normbench.training.experiment import (
    finished,
    never,
    prepare,
    train_and_record,
)
from normbench.training.network import choose_device
from normbench.training.observer import Observer, Silent
from normbench.training.progress import Progress, failure
from normbench.training.replica import Share, require_equal_shares
from normbench.training.trainer import Trainer

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store  # dist.Store, which mypy cannot see

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for another; the first one evaluates meanwhile."""

LEAVING = timedelta(seconds=3)
"""How long a process that has ended its work waits for the first to end too."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World(Share):
    """The processes of a run, of which this is number `rank`.

    `store` keeps notes of processes that have ended.
    """

    local_rank: int = 0
    local_size: int = 1
    store: "Store | None" = None

    @property
    def first(self) -> bool:
        """Whether this is the process that keeps the record."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """This process's own device of the kind of `device`.

        Raises RequestError where there are fewer devices than processes, or none that
        several processes can share a run on.
        """
        if device.type == "cpu":
            return device
        if device.index is not None:
            raise RequestError(
                f"device={device} is one device, and this run has {self.size} "
                f"processes; device={device.type} gives each its own"
            )
        if device.type != "cuda":
            raise RequestError(
                f"device={device.type} is for one process, and this run has "
                f"{self.size}: they have no way to exchange what is on it; set "
                "device=cpu, or start one process"
            )
        count = torch.cuda.device_count()
        if count < self.local_size:
            raise RequestError(
                f"{self.local_size} processes need as many {device.type} devices, and "
                f"this machine has {count}; start as many as there are devices, or set "
                "device=cpu"
            )
        return torch.device(device.type, self.local_rank)

    def send(self, message: Any) -> None:
        """Send `message` to every other process; for the first one."""
        dist.broadcast_object_list([message], src=0, device=CPU)

    def receive(self) -> Any:
        """The next message of the first process; for the others."""
        messages: list[Any] = [None]
        dist.broadcast_object_list(messages, src=0, device=CPU)
        return messages[0]

    def from_first(self, function: Callable[[], T]) -> T:
        """Call `function` in the first process alone; all return or raise the same."""
        if self.first:
            try:
                result = function()
            except NormbenchError as error:
                self.send(error)
                raise
            self.send(result)
            return result
        received: T | NormbenchError = self.receive()
        if isinstance(received, NormbenchError):
            raise received
        return received

    @contextmanager
    def raising_together(self) -> Iterator[None]:
        """Raise a NormbenchError that the block raises in one process in all of them.

        Every process must enter and leave the block.
        """
        own_error = None
        try:
            yield
        except NormbenchError as error:
            own_error = error
        for error_of_a_process in self.gather(own_error):
            if error_of_a_process is not None:
                raise error_of_a_process

    def announce(self, state: State | None) -> None:
        self.send(state)

    def any(self, flag: bool) -> bool:
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes)
        return bool(votes)

    def gather(self, value: T) -> list[T]:
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def mean(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values.div_(self.size)

    def neighbours(self, count: int) -> dist.ProcessGroup | None:
        """As `Share.neighbours`; every process of the run must call it."""
        if count == 1:
            return None
        if count == self.size:
            return dist.group.WORLD
        group, _ = dist.new_subgroups(group_size=count, timeout=PATIENCE)
        return group

    def explain(self, error: Exception) -> tuple[Status, str]:
        """As `Share.explain`; the first process adds the errors of those it lost."""
        status, reason = super().explain(error)
        if self.first and _is_lost_connection(error):
            for rank, other in self.notes("skipped").items():
                status, reason = "skipped", f"process {rank}: {other}"
            for rank, other in self.notes("failed").items():
                reason = f"process {rank}: {other}\n{reason}"
        return status, reason

    def leave_note(self, key: str, text: str) -> None:
        """Keep a text for the processes that are left when this one has ended."""
        if self.store is not None:
            with suppress(RuntimeError):  # the store has ended with its process
                self.store.set(f"{key} {self.rank}", text)

    def notes(self, key: str) -> dict[int, str]:
        """The texts that processes left under `key`, by rank."""
        if self.store is None:
            return {}
        keys = {rank: f"{key} {rank}" for rank in range(self.size)}
        with suppress(RuntimeError):
            return {
                rank: self.store.get(name).decode()
                for rank, name in keys.items()
                if self.store.check([name])
            }
        return {}

    def leave_after_first(self) -> None:
        """Wait a moment for the first process to come here too.

        torchrun ends all processes as soon as one ends with an error, and the first
        process may still have to print or record something.
        """
        self.leave_note("leaving", "")
        if self.store is not None:
            with suppress(RuntimeError):  # it does not come, or the store has ended
                self.store.wait(["leaving 0"], LEAVING)


def _is_lost_connection(error: Exception) -> bool:
    """Whether another process is gone; gloo has no exception type for that."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


@contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started; a World of one without torchrun."""
    if not dist.is_torchelastic_launched():
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
    )
    local = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    yield World(rank, size, *local, store=store)
    # Skipped after an error, when the other processes may be gone. A process group that
    # a reference cycle keeps alive has threads that may abort the interpreter's end.
    gc.collect()
    dist.destroy_process_group()


def run_together(
    config: RunConfig,
    results: Results,
    world: World,
    *,
    observer: Observer | None = None,
    stop: Callable[[], bool] | None = None,
) -> RunRecord:
    """Do `run_one` in all processes of `world`, each on its share of every batch.

    Every process returns the record, or raises what the first one raises. Where the
    first process dies, another one records the failure; where another one fails, it
    raises NormbenchError, and the first one records the reason.
    """
    observer = observer or Silent()
    if record := world.from_first(lambda: finished(config, results, observer)):
        return record
    progress = Progress(config, observer)
    with world.raising_together():
        device = world.device(choose_device(config.device))
        require_equal_shares(config, world.size)
        device, task = prepare(config, device)
    if not world.first:
        return _follow(task, device, results, progress, stop, world)
    try:
        record = train_and_record(task, device, results, progress, stop, world)
    except NormbenchError as error:
        world.send(error)
        raise
    if progress.status in {"ok", "diverged"}:  # else the others do not wait for it
        world.send(record)
    return record


def _follow(
    task: Task,
    device: torch.device,
    results: Results,
    progress: Progress,
    stop: Callable[[], bool] | None,
    world: World,
) -> RunRecord:
    """Train with the first process, and return the record that it sends."""
    config = progress.config
    begun = world.receive()
    if isinstance(begun, RunRecord):
        return begun
    if isinstance(begun, NormbenchError):
        raise begun
    before = read(run_folder(results.folder, progress.run_id))
    try:
        if begun is not None:
            progress.resume(begun)
        with suppress(Stopped):  # the first process sends where the run continues
            Trainer(task, device, progress, stop or never, world).train(begun)
        ended = world.receive()
    except Exception as error:
        raise _abandon(config, results, before, error, world) from None
    if isinstance(ended, NormbenchError):
        raise ended
    assert isinstance(ended, RunRecord)
    return ended


def _abandon(
    config: RunConfig,
    results: Results,
    before: RunRecord | None,
    error: Exception,
    world: World,
) -> NormbenchError:
    """The error to end this process with; the others find its reason in a note.

    If the first process has died without replacing the record `before`, this one
    records the failure.
    """
    status, reason = world.explain(error)
    world.leave_note(status, reason)
    this = f"process {world.rank} of {world.size}"
    failed = failure(
        config, f"{this} lost the first: {reason}", results.modules, world.size
    )
    with suppress(Busy), results.writer(config) as writer:  # busy: the first lives
        if read(writer.folder) == before:
            writer.finish(failed)
    return NormbenchError(f"{this} {status}: {reason.strip().splitlines()[-1]}")
