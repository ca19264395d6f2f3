"""Statistics shared by processes are those of the whole batch (two gloo processes)."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from normbench.norms import REGISTRY, Ghost, Norm, make, names
from normbench.norms.sharing import shared_by
from normbench.norms.statistics import batch_moments

SHARING = [name for name in names() if REGISTRY.get(name).uses_other_samples]
SAMPLES, C, T = 8, 16, 6
CASES = [(name, masked) for name in SHARING for masked in (False, True)]

Result = dict[str, Tensor]


def case(name: str, masked: bool) -> tuple[Norm, Tensor, Tensor | None, Tensor]:
    """A norm in float64, its input, a mask with unequal shares, and loss weights."""
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
    """Output, gradients and buffers after two forward and backward passes."""
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


def large_mean() -> tuple[Tensor, Tensor]:
    """Float32 values with mean 1e4 and deviation 1, and a mask with unequal shares."""
    x = torch.randn(SAMPLES, 3, 1000, generator=torch.Generator().manual_seed(0)) + 1e4
    lengths = torch.tensor([1000, 900, 800, 700, 60, 50, 40, 30])
    return x, torch.arange(1000) < lengths[:, None]


def compute_part(rank: int, folder: Path, processes: int) -> None:
    """Compute all cases in one process, with shared and with own statistics."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    share = SAMPLES // processes
    own_samples = slice(rank * share, (rank + 1) * share)
    results: dict[str, Result] = {}
    for name, masked in CASES:
        norm, x, mask, weights = case(name, masked)
        own_mask = None if mask is None else mask[own_samples]
        for group in (dist.group.WORLD, None):
            twin = copy.deepcopy(norm)
            module = Ghost(twin, SAMPLES if group else share)
            key = f"{name} {masked} {'shared' if group else 'own'}"
            with shared_by(group, processes):
                results[key] = step(
                    module, twin, x[own_samples], own_mask, weights[own_samples]
                )
    x, real = large_mean()
    for masked in (False, True):
        own_mask = real[own_samples] if masked else None
        with shared_by(dist.group.WORLD, processes):
            count = int(real.sum()) if masked else real.numel()
            mean, var = batch_moments(x[own_samples], own_mask, count)
        results[f"large mean {masked}"] = {"mean": mean, "var": var}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """The results of two processes with four samples each."""
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(compute_part, (folder, 2), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def joined_parts(parts: list[Result]) -> Result:
    """The result for the whole batch, from the results of its shares."""
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


@pytest.mark.slow
def test_two_times_four_samples_are_one_times_eight(
    parts: list[dict[str, Result]],
) -> None:
    for name, masked in CASES:
        norm, x, mask, weights = case(name, masked)
        expected = step(norm, norm, x, mask, weights)
        shared = joined_parts([part[f"{name} {masked} shared"] for part in parts])
        assert shared.keys() == expected.keys()
        for key, value in expected.items():
            case_name = f"{key} of {name}, masked: {masked}"
            torch.testing.assert_close(
                shared[key], value.double(), rtol=1e-10, atol=1e-11, msg=case_name
            )


def test_without_sharing_they_are_ghost_batches(parts: list[dict[str, Result]]) -> None:
    for name, masked in CASES:
        results = [part[f"{name} {masked} own"] for part in parts]
        case_name = f"{name}, masked: {masked}"
        norm, x, mask, weights = case(name, masked)
        whole = step(norm, norm, x, mask, weights)["output"]
        outputs = torch.cat([part["output"] for part in results])
        assert (outputs - whole).abs().max() > 1e-3, case_name
        for part, samples in zip(results, (slice(4), slice(4, 8)), strict=True):
            norm, x, mask, weights = case(name, masked)
            own_mask = None if mask is None else mask[samples]
            expected = step(norm, norm, x[samples], own_mask, weights[samples])
            if name == "power":  # of the mean of the processes' losses
                expected["nu"] = expected["nu"] / 2
            for key, value in expected.items():
                torch.testing.assert_close(
                    part[key], value, msg=f"{key} of {case_name}"
                )


def test_a_variance_survives_a_large_mean(parts: list[dict[str, Result]]) -> None:
    """In float32, E[x^2] - E[x]^2 would have no correct digit."""
    x, mask = large_mean()
    for masked in (False, True):
        real = x.double().transpose(0, 1)[:, mask if masked else torch.ones_like(mask)]
        for part in parts:
            moments = part[f"large mean {masked}"]
            torch.testing.assert_close(
                moments["var"].double(), real.var(1, correction=0), rtol=1e-3, atol=0
            )
            torch.testing.assert_close(
                moments["mean"].double(), real.mean(1), rtol=1e-6, atol=0
            )
    naive = x.square().mean() - x.mean().square()
    assert abs(naive.item() - 1) > 0.1
