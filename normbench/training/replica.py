"""The part of one process in a run: its share of each batch and its network copy."""

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
from normbench.norms.sharing import shared_by
from normbench.tasks.base import Task
from normbench.training import loop
from normbench.training.checkpoint import State
from normbench.training.network import norm_class

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The share of this process in every micro-batch, and the exchange of values.

    This class is for a run in one process, whose share is the whole micro-batch. The
    subclass `distributed.World` is for several processes.
    """

    rank: int = 0
    size: int = 1

    def announce(self, state: State | None) -> None:
        """Send `state`, from which training resumes, to the other processes."""

    def any(self, flag: bool) -> bool:
        """Return True in every process if `flag` is true in any process."""
        return flag

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of their ranks."""
        return [value]

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `values` over all processes, computed in place."""
        return values

    def neighbours(self, count: int) -> dist.ProcessGroup | None:
        """Return the group of `count` adjacent ranks that includes this process.

        Returns None if `count` is 1.
        """
        return None

    def explain(self, error: Exception) -> tuple[Status, str]:
        """Return the status of a run that `error` ended, and the reason to record."""
        if isinstance(error, Incompatible):  # some norms raise it only in training
            return "skipped", str(error)
        return "failed", "".join(traceback.format_exception(error))


def require_equal_shares(config: RunConfig, processes: int) -> None:
    """Raise RequestError unless all processes get equal shares of every batch."""
    micro_batch = config.batch_size // config.accumulate
    share, rest = divmod(micro_batch, processes)
    if rest:
        raise RequestError(
            f"batch_size={config.batch_size} with accumulate={config.accumulate} gives "
            f"micro-batches of {micro_batch} samples, which {processes} processes "
            "cannot share equally; choose a batch_size that is a multiple of "
            f"{processes * config.accumulate}"
        )
    if share % config.norm_batch and config.norm_batch % share:
        raise RequestError(
            f"norm_batch={config.norm_batch} must divide {share} or be a multiple of "
            f"{share}, the number of samples of a micro-batch in each of {processes} "
            "processes"
        )


class _Autocast(nn.Module):
    """A network that computes with autocast in 16 bits and returns float32."""

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
    """A network that torch compiles anew for each run.

    torch caches compiled graphs by function, not by network. `__init__` resets this
    cache. Without a reset, torch would not compile the ninth kind of network in a
    process, and the shapes of earlier runs in the cache would influence this run.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        torch.compiler.reset()
        # With the compiler's own random numbers, dropout would drop other values than
        # in a run without compilation.
        compiled = torch.compile(network, options={"fallback_random": True})
        self.network = cast(nn.Module, compiled)

    def forward(self, *inputs: Tensor) -> Tensor:
        # Raise an error at the limit of recompilations. Otherwise torch would continue
        # without compilation.
        with torch._dynamo.config.patch(fail_on_cache_limit_hit=True):
            output: Tensor = self.network(*inputs)
        return output


class Replica:
    """The copy of the network that this process trains on its share of the samples.

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
        # The number of samples of this process in a micro-batch.
        self.samples = config.batch_size // config.accumulate // share.size
        # The number of processes that compute the statistics of a batch together.
        group_size = max(1, config.norm_batch // self.samples)
        norms_class = norm_class(config)
        self.group = share.neighbours(
            group_size if norms_class.uses_other_samples else 1
        )
        self.statistics: list[Tensor] = []
        # Several groups of processes have different running statistics.
        if group_size < share.size and norms_class.differs_in_eval:
            buffers = [buffer for norm in norms for buffer in norm.buffers()]
            self.statistics = [b for b in buffers if b.is_floating_point()]
        self.model: nn.Module = model
        if config.compile:
            self._require_shared_statistics(model)
            self.model = _Compiled(model)
        if config.precision != "fp32":
            self.model = _Autocast(self.model, device.type, config.precision)
        if share.size > 1:
            if share.rank > 0:  # dropout must differ between the processes
                torch.manual_seed(loop.seed_of("process", config.seed, share.rank))
            with warnings.catch_warnings():
                # Not every supported version of torch has the new name of the option.
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                self.model = DistributedDataParallel(
                    self.model, broadcast_buffers=False, gradient_as_bucket_view=True
                )

    def _require_shared_statistics(self, model: nn.Module) -> None:
        """Raise Incompatible if a norm does not share its statistics as it should.

        The forward pass of a norm checks whether the norm shares its statistics. The
        forward pass of a compiled norm does not. So this method calls a copy of the
        network that is not compiled.
        """
        if self.group is None:
            return
        inputs = self.task.inputs(self.task.splits["train"][: self.samples])
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            with shared_by(self.group, self.share.size):
                copy.deepcopy(model).train()(*inputs)

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        """Tell the task which samples of this process `epoch` has, in order."""
        self.task.begin_epoch(epoch, self._own_samples(order))

    def average_statistics(self) -> None:
        """Average running statistics over processes, if the processes differ."""
        if not self.statistics:
            return
        flat = torch.cat([tensor.flatten() for tensor in self.statistics])
        means = self.share.mean(flat).split([t.numel() for t in self.statistics])
        for tensor, mean in zip(self.statistics, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """Return the mean loss of the samples of this process in `index` (B,)."""
        if self.share.size == 1:
            return self.task.loss(model, index)
        with shared_by(self.group, self.share.size):
            return self.task.loss_of_share(model, self._own_samples(index), index)

    def _own_samples(self, order: Tensor) -> Tensor:
        """Return the samples of this process in each micro-batch of `order`."""
        shares = order.reshape(-1, self.share.size, self.samples)
        return shares[:, self.share.rank].flatten()
