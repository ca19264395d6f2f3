"""The processes of one data-parallel run, as torchrun starts them.

The first (rank 0) keeps the record, mirrors it and evaluates; the others train. Words
between them go through a group on the CPU, so that none waits for a device.
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from normbench.errors import NormbenchError, RequestError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for another: the first one evaluates meanwhile."""

LEAVING = timedelta(seconds=3)
"""How long a process that has nothing more to say waits for the first to say it."""


class Store(Protocol):
    """What is used of torch.distributed.Store."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...

    def wait(self, keys: list[str], timeout: timedelta) -> None: ...


@dataclass(frozen=True)
class World:
    """This process among those of its run; a process alone is `World()`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Store | None = None
    """Where words stay that a process left before it ended."""

    @property
    def first(self) -> bool:
        """Whether this is the process that keeps the record."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """This process's own device of the kind of `device`; torch's current one, too.

        Raises RequestError where there are fewer devices than processes, or none that
        several can share a run on.
        """
        if self.size == 1 or device.type == "cpu":
            if device.index is not None:  # torch means the current one in places
                torch.cuda.set_device(device)
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
        own = torch.device(device.type, self.local_rank)
        torch.cuda.set_device(own)
        return own

    def from_first(self, do: Callable[[], T]) -> T:
        """What `do` gives in the first process, which alone does it.

        What it raises there, all raise.
        """
        if self.size == 1:
            return do()
        if not self.first:
            heard: T = self._heard()
            return heard
        try:
            result = do()
        except BaseException as error:
            self._say(error if _travels(error) else NormbenchError(str(error)))
            raise
        self._say(result)
        return result

    def together(self, do: Callable[[], T]) -> T:
        """What `do` gives in this process, once every process has done it.

        The RequestError that it raises in any of them, all raise.
        """
        refused: RequestError | None = None
        done: list[T] = []
        try:
            done.append(do())
        except RequestError as error:
            refused = error
        for refusal in self.each(refused):
            if refusal is not None:
                raise refusal
        return done[0]

    def _say(self, what: Any) -> None:
        dist.broadcast_object_list([what], src=0, device=_CPU)

    def _heard(self) -> Any:
        heard: list[Any] = [None]
        dist.broadcast_object_list(heard, src=0, device=_CPU)
        if isinstance(heard[0], BaseException):
            raise heard[0]
        return heard[0]

    def any(self, yes: bool) -> bool:
        """Whether any process says yes; all ask at once."""
        if self.size == 1:
            return yes
        votes = torch.tensor(int(yes))
        dist.all_reduce(votes)
        return bool(votes)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes, which takes their place."""
        if self.size == 1:
            return values
        dist.all_reduce(values)
        return values.div_(self.size)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Set each of `tensors` to its mean over the processes."""
        if self.size == 1 or not tensors:
            return
        means = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
        parts = means.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def each(self, own: T) -> list[T]:
        """What every process has, by rank."""
        if self.size == 1:
            return [own]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, own)
        return gathered

    def neighbours(self, count: int) -> dist.ProcessGroup | None:
        """This process with those beside it, `count` in all; None where it is alone.

        Every process of the run must ask.
        """
        if count == 1:
            return None
        if count == self.size:  # a second group of the same would be one too many
            return dist.group.WORLD
        group, _ = dist.new_subgroups(group_size=count, timeout=PATIENCE)
        return group

    def leave_word(self, key: str, word: str) -> None:
        """Say something to those that are still there when this process has ended."""
        if self.store is not None:
            with suppress(RuntimeError):  # it has ended with its own process
                self.store.set(f"{key} {self.rank}", word)

    def words(self, key: str) -> dict[int, str]:
        """What processes left under `key`, by rank."""
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
        """Return once the first process has come here too, if it soon does.

        torchrun ends the others as soon as one leaves with an error, and the first may
        have something to say.
        """
        self.leave_word("leaving", "")
        if self.store is not None:
            with suppress(RuntimeError):  # it does not, or the store ended with it
                self.store.wait(["leaving 0"], LEAVING)


_CPU = torch.device("cpu")


def _travels(error: BaseException) -> bool:
    """Whether `error` is one of ours, which mean the same in every process."""
    return isinstance(error, NormbenchError | KeyboardInterrupt)


def lost_another(error: BaseException) -> bool:
    """Whether `error` is that another process is gone: gloo has no type for that."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun has started this process in; alone without torchrun."""
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
    # Not where something was raised: the others may not be there to take leave of.
    # A group that something still holds, if only a cycle, keeps its threads, which may
    # abort the end of the interpreter.
    gc.collect()
    dist.destroy_process_group()
