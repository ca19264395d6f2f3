"""The Transformer over padded sequences: what padding changes and what it does not."""

from collections.abc import Iterator

import pytest
import torch
from conftest import SMALL, Run

from normbench.config.composition import compose
from normbench.errors import RequestError
from normbench.tasks.base import Task
from normbench.training import loop
from normbench.training.network import build, make_task


def made(*overrides: str) -> tuple[Task, torch.nn.Module]:
    """Make the task and its network in evaluation mode, from seed 0."""
    config = compose([*SMALL["transformer"], *overrides])
    task = make_task(config, torch.device("cpu"))
    torch.manual_seed(0)
    return task, build(config, task).model.eval()


INDEX = torch.arange(32)


@pytest.mark.parametrize("norm_position", ["pre", "post", "peri", "res_post"])
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
    short_task, _ = made("task.max_length=2")
    short, short_mask = short_task.inputs(INDEX)
    assert short.shape == (32, 2)
    assert torch.equal(short[short_mask], tokens[:, :2][mask[:, :2]])


def test_in_training_pads_change_batch_norm_but_not_masked_batch_norm() -> None:
    def change(norm: str) -> float:
        task, model = made(f"norm={norm}")
        padded_task, padded_model = made(f"norm={norm}", "task.padding=max_length")
        logits = model.train()(*task.inputs(INDEX))
        padded_logits = padded_model.train()(*padded_task.inputs(INDEX))
        return (padded_logits - logits).detach().abs().max().item()

    assert change("batch") > 1e-2
    assert change("batch_masked") < 1e-4


def epoch(task: Task, batch_size: int = 32, accumulate: int = 1) -> list[torch.Tensor]:
    """Return the micro-batches of the first epoch of seed 0."""
    index = task.splits["train"]
    batches = loop.micro_batches(index, 0, batch_size, accumulate, task.batch_by)
    steps = range(1, len(index) // batch_size + 1)
    return [batch for step in steps for batch in batches(step)]


def is_long(task: Task, batch: torch.Tensor) -> bool:
    length = task.inputs(batch)[0].shape[1]
    longest = int(task.lengths[batch].max())  # type: ignore[attr-defined]
    assert length in {longest, 64}
    return length == 64


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_training_batches_is_long(share: float, accumulate: int) -> None:
    task, _ = made(f"task.long_batches={share}")
    batches = epoch(task, accumulate=accumulate)
    count = sum(is_long(task, batch) for batch in batches)
    sd = (share * (1 - share) * len(batches)) ** 0.5
    assert abs(count - share * len(batches)) <= 3 * sd


def test_only_the_samples_of_a_batch_decide_whether_it_is_long() -> None:
    small_share, _ = made("task.long_batches=0.1")
    task, model = made("task.long_batches=0.5", "norm=batch")
    other, _ = made("task.long_batches=0.5", "norm=layer", "lr=1")
    batches = epoch(task, batch_size=16)
    expected = [is_long(task, batch) for batch in batches]
    model.train()(*task.inputs(task.splits["train"][:32]))
    assert [is_long(task, batch.flip(0)) for batch in batches] == expected
    assert [is_long(other, batch) for batch in reversed(batches)] == expected[::-1]
    # A batch that is long with a small share is also long with a larger share.
    fewer = [is_long(small_share, batch) for batch in batches]
    assert 0 < sum(fewer) < sum(expected)
    assert all(b or not a for a, b in zip(fewer, expected, strict=True))


def test_validation_and_test_batches_are_padded_to_their_longest_sequence() -> None:
    task, _ = made("task.long_batches=1.0")
    for split in ("val", "test"):
        for batch in task.splits[split].split(32):
            assert not is_long(task, batch)
    mixed = torch.cat([task.splits["train"][:31], task.splits["test"][:1]])
    assert not is_long(task, mixed)


def test_batching_by_length_varies_the_share_of_pads_at_a_fixed_length() -> None:
    def shares(*overrides: str) -> torch.Tensor:
        task, _ = made("task.padding=max_length", *overrides)
        masks = [task.inputs(batch)[1] for batch in epoch(task)]
        assert {mask.shape for mask in masks} == {(32, 64)}
        return torch.stack([1 - mask.float().mean() for mask in masks])

    random, by_length = shares(), shares("task.batching=length")
    assert by_length.mean() == pytest.approx(random.mean().item(), abs=1e-3)
    assert by_length.std() > 4 * random.std()
    task, _ = made("task.batching=length")
    pads = [1 - task.inputs(batch)[1].float().mean() for batch in epoch(task)]
    assert torch.stack(pads).mean() < 0.1


def test_long_batches_are_refused_if_every_batch_has_max_length() -> None:
    with pytest.raises(RequestError, match=r"task\.long_batches=0\.5 does not apply"):
        made("task.long_batches=0.5", "task.padding=max_length")
    with pytest.raises(RequestError, match=r"task\.long_batches=1\.5"):
        compose(["task=transformer", "task.long_batches=1.5"])


def trained(*overrides: str) -> torch.Tensor:
    """Return the logits of 32 test samples after twenty training steps."""
    task, model = made(*overrides)
    # The gradient of a bias before a batch norm is a rounding error. AdamW would scale
    # it to a full step in float32; in float64 it is smaller than AdamW's eps.
    model.double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for batch in epoch(task)[:20]:
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(model, batch))
        optimizer.step()
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(*task.inputs(task.splits["test"][:32]))
    return logits


@pytest.mark.parametrize("batching", ["random", "length"])
@pytest.mark.parametrize("change", ["long_batches=0.5", "padding=max_length"])
@pytest.mark.parametrize(
    ("norm", "depends_on_pads"),
    [("layer", False), ("rms", False), ("batch_masked", False), ("batch", True)],
)
def test_more_pads_change_the_training_of_batch_norm_only(
    norm: str, depends_on_pads: bool, change: str, batching: str
) -> None:
    same = [f"norm={norm}", f"task.batching={batching}"]
    logits, padded_logits = trained(*same), trained(*same, f"task.{change}")
    assert logits.std() > 0.1
    difference = (padded_logits - logits).abs().max().item()
    assert difference > 0.05 if depends_on_pads else difference < 1e-6


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """Record the batches of every pass that recomputes statistics."""
    recorded: list[list[int]] = []

    def recompute(forward: object, norms: object, batches: object) -> None:
        assert isinstance(batches, tuple)
        recorded.extend(batch.tolist() for batch in batches)

    monkeypatch.setattr("normbench.training.evaluation.recompute_statistics", recompute)
    yield recorded


@pytest.mark.parametrize("batching", ["random", "length"])
def test_statistics_are_recomputed_over_batches_like_those_of_training(
    batching: str, passes: list[list[int]], run: Run
) -> None:
    overrides = [*SMALL["transformer"], "norm=batch", f"task.batching={batching}"]
    run(*overrides, "accumulate=4", "seed=0")
    task, _ = made(f"task.batching={batching}")
    if batching == "length":
        assert passes == [batch.tolist() for batch in epoch(task, accumulate=4)]
    else:
        whole = len(task.splits["train"]) // 8 * 8
        visited = [sample for batch in passes for sample in batch]
        assert visited == task.splits["train"][:whole].tolist()


def test_a_norm_gets_a_view_of_the_hidden_states() -> None:
    task, model = made("norm=none")
    inputs = []
    for module in model.modules():
        if type(module).__name__ == "NoNorm":
            module.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    model(*task.inputs(INDEX))
    assert len(inputs) == 2
    for x in inputs:
        assert x.shape[:2] == (32, 16)
        assert x.transpose(1, 2).is_contiguous()
