"""One data-parallel run in several processes, which torchrun starts.

The first process (rank 0) does the same as `run_one`; the others only train. Messages
between processes use gloo on the CPU, so that no message waits for work on a GPU.
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

TIMEOUT = timedelta(hours=2)
"""Maximum time that a process waits for the others.

It is long because all others wait while the first process evaluates."""

EXIT_TIMEOUT = timedelta(seconds=3)
"""Maximum time that a process waits before its exit for the first process."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World(Share):
    """This process (number `rank`) among the `size` processes of a run.

    `local_rank` and `local_size` count only the processes on this machine. Processes
    leave notes in `store`, which others can read after a process has ended.
    """

    local_rank: int = 0
    local_size: int = 1
    store: "Store | None" = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the record."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process, which has the type of `device`.

        Raises RequestError if there are fewer devices than processes, or if several
        processes cannot use this type of device together.
        """
        if device.type == "cpu":
            return device
        if device.index is not None:
            raise RequestError(
                f"device={device} is one device, but this run has {self.size} "
                f"processes; set device={device.type} to give each process its own"
            )
        if device.type != "cuda":
            raise RequestError(
                f"device={device.type} supports one process, but this run has "
                f"{self.size}; set device=cpu, or start one process"
            )
        count = torch.cuda.device_count()
        if count < self.local_size:
            raise RequestError(
                f"{self.local_size} processes need {self.local_size} {device.type} "
                f"devices, but this machine has {count}; start {count} processes, or "
                "set device=cpu"
            )
        return torch.device(device.type, self.local_rank)

    def send(self, message: Any) -> None:
        """Send `message` to all other processes. Only the first process calls this."""
        dist.broadcast_object_list([message], src=0, device=CPU)

    def receive(self) -> Any:
        """Return the next message of the first process. All others call this."""
        messages: list[Any] = [None]
        dist.broadcast_object_list(messages, src=0, device=CPU)
        return messages[0]

    def from_first(self, function: Callable[[], T]) -> T:
        """Call `function` in the first process only.

        Every process returns its result, or raises its NormbenchError.
        """
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
        """If the block raises a NormbenchError in one process, raise it in all.

        Every process must enter and leave the block.
        """
        own_error = None
        try:
            yield
        except NormbenchError as error:
            own_error = error
        for process_error in self.gather(own_error):
            if process_error is not None:
                raise process_error

    def announce(self, state: State | None) -> None:
        self.send(state)

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags)
        return bool(flags)

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
        """Return the same as `Share.neighbours`. Every process must call this."""
        if count == 1:
            return None
        if count == self.size:
            return dist.group.WORLD
        group, _ = dist.new_subgroups(group_size=count, timeout=TIMEOUT)
        return group

    def explain(self, error: Exception) -> tuple[Status, str]:
        """Return the same as `Share.explain`.

        The first process adds the errors of lost processes.
        """
        status, reason = super().explain(error)
        if self.first and _is_lost_connection(error):
            for rank, note in self.notes("skipped").items():
                status, reason = "skipped", f"process {rank}: {note}"
            for rank, note in self.notes("failed").items():
                reason = f"process {rank}: {note}\n{reason}"
        return status, reason

    def leave_note(self, key: str, text: str) -> None:
        """Leave a text that other processes can read after this one has ended."""
        if self.store is not None:
            with suppress(RuntimeError):  # the process that serves the store has ended
                self.store.set(f"{key} {self.rank}", text)

    def notes(self, key: str) -> dict[int, str]:
        """Return the texts that processes left under `key`, by rank."""
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

    def wait_before_exit(self) -> None:
        """Wait until the first process calls this too, at most EXIT_TIMEOUT.

        torchrun kills all processes when one exits with an error, but the first process
        may still have to print or record something.
        """
        self.leave_note("leaving", "")
        if self.store is not None:
            with suppress(RuntimeError):  # a timeout, or the store has ended
                self.store.wait(["leaving 0"], EXIT_TIMEOUT)


def _is_lost_connection(error: Exception) -> bool:
    """Return whether `error` means that another process has ended.

    gloo has no exception type for that.
    """
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started; yield the World of this process.

    Without torchrun, the World has one process.
    """
    if not dist.is_torchelastic_launched():
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )
    local = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    yield World(rank, size, *local, store=store)
    # After an error, these two calls are left out: the other processes may have ended.
    # gc.collect frees process groups in reference cycles. Otherwise the threads of
    # these groups may abort Python at exit.
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
    """Do the run of `config` in all processes of `world`, as `run_one` does in one.

    Each process trains on its share of every batch. Every process returns the record,
    or raises the error of the first process. If the first process dies, another process
    records the failure. If a process other than the first fails, that process raises
    NormbenchError, and the first process records the reason.
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
    # After a failure or a skip in training, no process waits for the record.
    if progress.status in {"ok", "diverged"}:
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
    """Train together with the first process; return the record that it sends."""
    config = progress.config
    message = world.receive()
    if isinstance(message, RunRecord):  # another command has done the run meanwhile
        return message
    if isinstance(message, NormbenchError):
        raise message
    state: State | None = message
    previous_record = read(run_folder(results.folder, progress.run_id))
    try:
        if state is not None:
            progress.resume(state)
        with suppress(Stopped):  # the first process sends its own Stopped
            Trainer(task, device, progress, stop or never, world).train(state)
        result = world.receive()
    except Exception as error:
        raise _abandon(config, results, previous_record, error, world) from None
    if isinstance(result, NormbenchError):
        raise result
    assert isinstance(result, RunRecord)
    return result


def _abandon(
    config: RunConfig,
    results: Results,
    previous_record: RunRecord | None,
    error: Exception,
    world: World,
) -> NormbenchError:
    """Return the error with which this process ends; leave a note with its reason.

    If the first process has died without replacing `previous_record`, record the
    failure.
    """
    status, reason = world.explain(error)
    world.leave_note(status, reason)
    name = f"process {world.rank} of {world.size}"
    full_reason = f"{name} lost the first process: {reason}"
    failed = failure(config, full_reason, results.modules, world.size)
    # Busy means that the first process is alive: it holds the lock of the run.
    with suppress(Busy), results.writer(config) as writer:
        if read(writer.folder) == previous_record:
            writer.finish(failed)
    return NormbenchError(f"{name} {status}: {reason.strip().splitlines()[-1]}")
