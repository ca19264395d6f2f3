"""One process's part of a run: its share of each batch, and the network it trains."""

import copy
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from normbench.config.schema import RunConfig, Status
from normbench.errors import Incompatible, RequestError
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.statistics import shared_by
from normbench.tasks.base import Task
from normbench.training import loop
from normbench.training.checkpoint import State

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """This process's share of every micro-batch: all of it where the run has one.

    `distributed.World` is the share of one of several processes.
    """

    rank: int = 0
    size: int = 1

    def announce(self, state: State | None) -> None:
        """Send every other process the state that training continues from."""

    def any(self, flag: bool) -> bool:
        """True in every process where `flag` is true in any."""
        return flag

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        return [value]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes, computed in place."""
        return values

    def neighbours(self, count: int) -> dist.ProcessGroup | None:
        """The group of this process and those beside it, `count` in all, or None."""
        return None

    def explain(self, error: Exception) -> tuple[Status, str]:
        """The status and the recorded reason of a run that `error` ended."""
        if isinstance(error, Incompatible):  # some norms raise it on a certain batch
            return "skipped", str(error)
        return "failed", "".join(traceback.format_exception(error))


def require_equal_shares(config: RunConfig, processes: int) -> None:
    """Raise RequestError unless `processes` can each take a share of every batch."""
    micro_batch = config.batch_size // config.accumulate
    share, rest = divmod(micro_batch, processes)
    if rest:
        raise RequestError(
            f"batch_size={config.batch_size} in accumulate={config.accumulate} "
            f"micro-batches gives {micro_batch} samples at a time, which {processes} "
            "processes cannot share equally; choose a multiple of "
            f"{processes * config.accumulate}"
        )
    if share % config.norm_batch and config.norm_batch % share:
        raise RequestError(
            f"norm_batch={config.norm_batch} neither divides the {share} samples that "
            f"each of {processes} processes has at a time nor is a multiple of them"
        )


class _Narrow(nn.Module):
    """A network that multiplies in 16 bits and returns float32."""

    def __init__(
        self, network: nn.Module, device: str, precision: Literal["bf16", "fp16"]
    ) -> None:
        super().__init__()
        self.network = network
        self.device = device
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast(self.device, self.dtype):
            output: Tensor = self.network(*inputs)
        return output.float()


class _Compiled(nn.Module):
    """A network that torch compiles anew for each run, and always compiles.

    torch caches compiled graphs by function, not by network: without a reset it would
    not compile the ninth kind of network in a process, and the cached shapes would make
    a run depend on the runs before it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        torch.compiler.reset()
        # The inductor's own random numbers would drop out other values.
        compiled = torch.compile(network, options={"fallback_random": True})
        self.network = cast(nn.Module, compiled)

    def forward(self, *inputs: Tensor) -> Tensor:
        # Fail where torch would stop compiling (the option's name since torch 2.6).
        with torch._dynamo.config.patch(fail_on_cache_limit_hit=True):
            output: Tensor = self.network(*inputs)
        return output


class Replica:
    """The network as this process trains it, on its share of the samples.

    `model` and `loss` are arguments of `loop.fit`.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        model: nn.Module,
        norms: Sequence[nn.Module],
        device: torch.device,
        share: Share,
    ) -> None:
        self.task, self.share = task, share
        self.samples = config.batch_size // config.accumulate // share.size
        sharing = max(1, config.norm_batch // self.samples)
        norm = NORMS.get(config.norm.name)
        self.group = share.neighbours(sharing if norm.uses_other_samples else 1)
        self.statistics: list[Tensor] = []
        if sharing < share.size and norm.differs_in_eval:
            buffers = [buffer for norm in norms for buffer in norm.buffers()]
            self.statistics = [b for b in buffers if b.is_floating_point()]
        self.model: nn.Module = model
        if config.compile:
            self._require_sharing(model)
            self.model = _Compiled(model)
        if config.precision != "fp32":
            self.model = _Narrow(self.model, device.type, config.precision)
        if share.size > 1:
            if share.rank:  # else every process would drop out the same positions
                torch.manual_seed(loop.seed_of("process", config.seed, share.rank))
            with warnings.catch_warnings():
                # Not every supported torch has the option's new name.
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                self.model = DistributedDataParallel(
                    self.model, broadcast_buffers=False, gradient_as_bucket_view=True
                )

    def _require_sharing(self, model: nn.Module) -> None:
        """Raise Incompatible where a norm does not share what it should.

        A compiled norm does not check that, so an uncompiled copy does.
        """
        if self.group is None:
            return
        inputs = self.task.inputs(self.task.splits["train"][: self.samples])
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            with shared_by(self.group, self.share.size):
                copy.deepcopy(model).train()(*inputs)

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        """Tell the task the samples of this process in the epoch, in order."""
        self.task.begin_epoch(epoch, self._own(order))

    def average_statistics(self) -> None:
        """Average running statistics over processes that see different samples."""
        if not self.statistics:
            return
        flat = torch.cat([tensor.flatten() for tensor in self.statistics])
        means = self.share.mean(flat).split([t.numel() for t in self.statistics])
        for tensor, mean in zip(self.statistics, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """The mean loss of this process's samples in the micro-batch `index` (B,)."""
        if self.share.size == 1:
            return self.task.loss(model, index)
        with shared_by(self.group, self.share.size):
            return self.task.loss_of_share(model, self._own(index), index)

    def _own(self, order: Tensor) -> Tensor:
        """This process's samples of each micro-batch in `order`."""
        shares = order.reshape(-1, self.share.size, self.samples)
        return shares[:, self.share.rank].flatten()
