"""The Transformer over padded sequences: what pads may change and what they may not."""

import pytest
import torch
from conftest import SMALL

from normbench.config import compose
from normbench.network import build, make_task
from normbench.tasks.base import Task


def made(*overrides: str) -> tuple[Task, torch.nn.Module]:
    config = compose([*SMALL["transformer"], *overrides])
    task = make_task(config, torch.device("cpu"))
    torch.manual_seed(0)
    return task, build(config, task).model.eval()


INDEX = torch.arange(32)


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("zero_pads", ["true", "false"])
@pytest.mark.parametrize("norm", ["layer", "rms", "batch_masked", "batch", "none"])
@pytest.mark.parametrize(
    "change", ["task.padding=max_length", "task.padding_side=left"]
)
def test_how_sequences_are_padded_does_not_change_a_logit_in_evaluation(
    change: str, norm: str, zero_pads: str, norm_position: str
) -> None:
    same = [
        f"norm={norm}",
        f"task.zero_pads={zero_pads}",
        f"task.norm_position={norm_position}",
    ]
    task, model = made(*same)
    other_task, other = made(*same, change)
    tokens, mask = task.inputs(INDEX)
    other_tokens, other_mask = other_task.inputs(INDEX)
    assert tokens.shape != other_tokens.shape or not torch.equal(mask, other_mask)
    assert torch.equal(tokens[mask], other_tokens[other_mask])
    torch.testing.assert_close(
        other(other_tokens, other_mask), model(tokens, mask), rtol=1e-4, atol=1e-5
    )


def test_the_mask_covers_the_real_tokens() -> None:
    for side in ("left", "right"):
        task, _ = made(f"task.padding_side={side}")
        tokens, mask = task.inputs(INDEX)
        lengths = task.lengths[INDEX]  # type: ignore[attr-defined]
        assert mask.sum(1).tolist() == lengths.tolist()
        assert tokens.shape[1] == lengths.max()
        assert bool((tokens != task.pad).eq(mask).all())  # type: ignore[attr-defined]
        edge = mask[:, 0] if side == "right" else mask[:, -1]
        assert bool(edge.all())


def test_padding_to_max_length_and_cutting() -> None:
    task, _ = made("task.padding=max_length", "task.max_length=40")
    tokens, mask = task.inputs(INDEX)
    assert tokens.shape == mask.shape == (32, 40)
    cut, _ = made("task.max_length=2")
    short, real = cut.inputs(INDEX)
    assert short.shape == (32, 2)
    assert torch.equal(short[real], tokens[:, :2][mask[:, :2]])


def test_in_training_batch_norm_sees_the_pads_and_masked_batch_norm_does_not() -> None:
    def change(norm: str) -> float:
        task, model = made(f"norm={norm}")
        wide_task, wide = made(f"norm={norm}", "task.padding=max_length")
        model.train()
        wide.train()
        difference = wide(*wide_task.inputs(INDEX)) - model(*task.inputs(INDEX))
        return difference.detach().abs().max().item()

    assert change("batch") > 1e-2
    assert change("batch_masked") < 1e-4


def test_a_norm_reads_the_stream_through_a_view() -> None:
    task, model = made("norm=none")
    seen = []
    for module in model.modules():
        if type(module).__name__ == "NoNorm":
            module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(*task.inputs(INDEX))
    assert len(seen) == 2
    for x in seen:
        assert x.shape[:2] == (32, 16)
        assert x.transpose(1, 2).is_contiguous()
