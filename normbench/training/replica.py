"""The network as one process trains it: compiled, in 16 bits, one of several."""

import copy
import warnings
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from normbench.config.schema import RunConfig
from normbench.errors import RequestError
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.statistics import shared_by
from normbench.tasks.base import Task
from normbench.training import loop
from normbench.training.distributed import World


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
    """A network whose products are taken in 16 bits; what it answers is float32."""

    def __init__(
        self, network: nn.Module, device: str, precision: Literal["bf16", "fp16"]
    ) -> None:
        super().__init__()
        self.network = network
        self.device = device
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast(self.device, self.dtype):
            answer: Tensor = self.network(*inputs)
        return answer.float()


class _Compiled(nn.Module):
    """A network as torch compiles it, anew for each run and always.

    A process has one memory of what was compiled, by the function and not by the
    network: after eight kinds of networks torch would run the ninth as it is. What it
    remembers of shapes would also make a run depend on those before it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        torch.compiler.reset()
        # Dropout as without it: the inductor's own draws are others.
        compiled = torch.compile(network, options={"fallback_random": True})
        self.network = cast(nn.Module, compiled)

    def forward(self, *inputs: Tensor) -> Tensor:
        # Where one network is too many graphs, a run that says it is compiled fails
        # (the name is the one that torch has had since 2.6).
        with torch._dynamo.config.patch(fail_on_cache_limit_hit=True):
            answer: Tensor = self.network(*inputs)
        return answer


class Replica:
    """What one process trains: the network, or its copy among several.

    `model` and `loss` are for `train.fit`; `loss` is of this process's share of the
    samples.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        model: nn.Module,
        norms: Sequence[nn.Module],
        device: torch.device,
        world: World,
    ) -> None:
        self.task, self.world = task, world
        self.share = config.batch_size // config.accumulate // world.size
        sharing = max(1, config.norm_batch // self.share)
        norm = NORMS.get(config.norm.name)
        self.group = world.neighbours(sharing if norm.uses_other_samples else 1)
        self.statistics: list[Tensor] = []
        if sharing < world.size and norm.differs_in_eval:
            buffers = [buffer for norm in norms for buffer in norm.buffers()]
            self.statistics = [b for b in buffers if b.is_floating_point()]
        self.model: nn.Module = model
        if config.compile:
            self._require_sharing(model)
            self.model = _Compiled(model)
        if config.precision != "fp32":
            self.model = _Narrow(self.model, device.type, config.precision)
        if world.size > 1:
            if not world.first:
                # Else every process would drop out the same of its samples.
                torch.manual_seed(loop.seed_of("process", config.seed, world.rank))
            with warnings.catch_warnings():
                # Its new name is not in every torch that this runs with.
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                self.model = DistributedDataParallel(
                    self.model, broadcast_buffers=False, gradient_as_bucket_view=True
                )

    def _require_sharing(self, model: nn.Module) -> None:
        """Raise Incompatible where a norm does not share what it should.

        A compiled one is not asked, so a copy is, which changes and draws nothing here.
        """
        if self.group is None:
            return
        inputs = self.task.inputs(self.task.splits["train"][: self.share])
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            with shared_by(self.group, self.world.size):
                copy.deepcopy(model).train()(*inputs)

    def begin_epoch(self, epoch: int, order: Tensor) -> None:
        """Tell the task which samples this process trains on, and in which order."""
        self.task.begin_epoch(epoch, self._own(order))

    def agree_on_statistics(self) -> None:
        """One set of running statistics, where processes have met other samples."""
        self.world.average(self.statistics)

    def loss(self, model: nn.Module, index: Tensor) -> Tensor:
        """The mean loss of this process's samples in the micro-batch `index` (B,)."""
        if self.world.size == 1:
            return self.task.loss(model, index)
        with shared_by(self.group, self.world.size):
            return self.task.loss_of_share(model, self._own(index), index)

    def _own(self, order: Tensor) -> Tensor:
        """This process's samples of each micro-batch in `order`."""
        shares = order.reshape(-1, self.world.size, self.share)
        return shares[:, self.world.rank].flatten()
