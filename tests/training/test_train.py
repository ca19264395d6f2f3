"""The training loop: what a step descends, when it stops, what it is told."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from normbench.config import rates
from normbench.training import loop

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1, keepdim=True)


def square_error(model: nn.Module, index: Tensor) -> Tensor:
    return (model(X[index]) - Y[index]).square().mean()


def fitted(
    loss: Callable[[nn.Module, Tensor], Tensor] = square_error,
    accumulate: int = 1,
    steps: int = 12,
    **changes: Any,
) -> tuple[nn.Module, list[tuple[int, float, float]], int | None]:
    """A linear model fitted to the sum, its log, and the step at which it diverged."""
    torch.manual_seed(0)
    model = nn.Linear(5, 1).double()
    rows: list[tuple[int, float, float]] = []
    arguments: dict[str, Any] = {
        "steps": steps,
        "micro_batches": loop.micro_batches(torch.arange(64), 0, 16, accumulate),
        "learning_rate": lambda step: 0.05,
        "clip": None,
        "log_every": 1,
        "log": lambda *row: rows.append(row),
        "evaluate_at": frozenset[int](),
        "evaluate": lambda step: None,
    } | changes
    optimizer = loop.make_optimizer(
        model, [], "sgd", weight_decay=0.0, momentum=0.9, nesterov=True
    )
    return model, rows, loop.fit(model, loss, optimizer, **arguments)


def test_it_learns() -> None:
    _, rows, diverged = fitted(steps=200)
    assert diverged is None
    assert rows[-1][1] < 1e-3 * rows[0][1]


def test_accumulated_micro_batches_equal_the_full_batch() -> None:
    whole, rows, _ = fitted(accumulate=1)
    parts, part_rows, _ = fitted(accumulate=4)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())
    assert [row[1] for row in part_rows] == pytest.approx([row[1] for row in rows])


@pytest.mark.parametrize("log_every", [1, 4, 100])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("bad", [1, 6, 12])
def test_a_loss_that_is_not_finite_ends_training_and_names_the_step(
    bad: int, accumulate: int, log_every: int
) -> None:
    calls = 0

    def loss(model: nn.Module, index: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        good = square_error(model, index)
        return good * math.inf if calls == bad * accumulate else good

    _, rows, diverged = fitted(loss, accumulate, log_every=log_every)
    assert diverged == bad
    assert all(math.isfinite(row[1]) for row in rows)


def test_penalties_are_descended_with_the_loss_but_not_reported_in_it() -> None:
    class Penalised(nn.Module):
        penalty: Tensor | None = None

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            self.penalty = 3 * self.weight
            return x

    model = nn.Sequential(Penalised(), nn.Linear(5, 1)).double()
    reported: list[float] = []
    loop.fit(
        model,
        square_error,
        torch.optim.SGD(model.parameters(), lr=0.0),
        steps=1,
        micro_batches=lambda step: [torch.arange(8), torch.arange(8, 16)],
        learning_rate=lambda step: 0.1,
        clip=None,
        log_every=1,
        log=lambda step, loss, lr: reported.append(loss),
        evaluate_at=frozenset(),
        evaluate=lambda step: None,
    )
    assert model[0].weight.item() == pytest.approx(1 - 0.1 * 3)


def test_clipping_bounds_the_step() -> None:
    free, *_ = fitted(steps=1)
    clipped, *_ = fitted(steps=1, clip=1e-3)
    torch.manual_seed(0)
    start = nn.Linear(5, 1).double()

    def moved(model: nn.Module) -> float:
        weights = nn.utils.parameters_to_vector(model.parameters())
        first = nn.utils.parameters_to_vector(start.parameters())
        return (weights - first).norm().item()

    assert moved(clipped) == pytest.approx(0.05 * 1e-3 * 1.9, rel=1e-2)
    assert moved(free) > 10 * moved(clipped)


def test_evaluation_sees_evaluation_mode_and_training_goes_on() -> None:
    modes: list[tuple[int, bool]] = []
    module = nn.Dropout(0.5)

    def loss(model: nn.Module, index: Tensor) -> Tensor:
        assert model.training
        return square_error(model, index)

    model = nn.Sequential(nn.Linear(5, 1), module).double()
    loop.fit(
        model,
        loss,
        torch.optim.SGD(model.parameters(), lr=0.0),
        steps=6,
        micro_batches=loop.micro_batches(torch.arange(64), 0, 16, 1),
        learning_rate=lambda step: 0.01,
        clip=None,
        log_every=5,
        log=lambda *row: None,
        evaluate_at=frozenset({2, 4}),
        evaluate=lambda step: modes.append((step, model.training)),
    )
    assert modes == [(2, False), (4, False)]
    assert not model.training


@given(
    n=st.integers(1, 50),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_an_epoch_visits_whole_batches_of_distinct_samples(
    n: int, batch_size: int, seed: int, data: st.DataObject
) -> None:
    batch_size = min(batch_size, n)
    divisors = [d for d in range(1, batch_size + 1) if batch_size % d == 0]
    accumulate = data.draw(st.sampled_from(divisors))
    index = torch.arange(100, 100 + n)
    batches = loop.micro_batches(index, seed, batch_size, accumulate)
    per_epoch = n // batch_size
    epochs: list[Sequence[int]] = []
    for epoch in range(2):
        steps = range(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1)
        parts = [part for step in steps for part in batches(step)]
        assert {len(part) for part in parts} == {batch_size // accumulate}
        epochs.append(torch.cat(parts).tolist())
    for visited in epochs:
        assert len(visited) == per_epoch * batch_size == len(set(visited))
        assert set(visited) <= set(index.tolist())


def test_the_order_is_a_function_of_seed_and_step_alone() -> None:
    one, two, other = (
        loop.micro_batches(torch.arange(40), seed, 8, 1) for seed in (5, 5, 6)
    )
    for step in (1, 2, 7, 3):
        torch.rand(3)
        assert one(step)[0].tolist() == two(step)[0].tolist()
    assert one(1)[0].tolist() != other(1)[0].tolist()
    assert one(1)[0].tolist() != one(6)[0].tolist()


KEYED = st.integers(0, 9).flatmap(
    lambda seed: st.tuples(
        st.just(seed), st.lists(st.integers(0, 5), min_size=1, max_size=60)
    )
)


@given(keyed=KEYED, batch_size=st.integers(1, 20), data=st.data())
def test_batches_by_a_key_are_alike_in_it(
    keyed: tuple[int, list[int]], batch_size: int, data: st.DataObject
) -> None:
    seed, values = keyed
    batch_size = min(batch_size, len(values))
    divisors = [d for d in range(1, batch_size + 1) if batch_size % d == 0]
    accumulate = data.draw(st.sampled_from(divisors))
    key = torch.tensor([9, *values])  # sample 0 is in another part
    index = torch.arange(1, len(key))
    per_epoch = len(values) // batch_size

    def epoch(accumulate: int) -> list[list[int]]:
        batches = loop.micro_batches(index, seed, batch_size, accumulate, key)
        return [torch.cat([*batches(1 + i)]).tolist() for i in range(per_epoch)]

    batches = epoch(accumulate)
    assert batches == epoch(1)
    visited = sorted(sample for batch in batches for sample in batch)
    assert len(set(visited)) == len(visited) == per_epoch * batch_size
    # Some order of the batches is a cut of the sorted keys.
    spans = sorted((key[b].min().item(), key[b].max().item()) for b in batches)
    assert [end for span in spans for end in span] == sorted(
        end for span in spans for end in span
    )


def test_batches_by_a_key_come_and_are_filled_in_random_order() -> None:
    key = torch.arange(4096)
    order = loop.epoch_order(key.flip(0), 0, 0, 64, key)
    batches = order.view(-1, 64)
    assert torch.equal(batches.sort(1).values.sort(0).values.flatten(), key)
    ranks = torch.arange(64).double()
    firsts, halves = batches.amin(1).double(), batches.double().mean(1)
    assert torch.corrcoef(torch.stack([ranks, firsts]))[0, 1].abs() < 0.4
    # What a ghost batch of eight sees is no stretch of the sorted batch.
    spread = batches.view(64, 8, 8).double().mean(2) - halves[:, None]
    assert spread.std() == pytest.approx(64 / 12**0.5 / 8**0.5, rel=0.1)
    assert not torch.equal(order, loop.epoch_order(key.flip(0), 0, 1, 64, key))


def test_the_samples_that_an_epoch_drops_are_not_those_of_the_largest_key() -> None:
    key = torch.arange(40)
    kept = [set(loop.epoch_order(key, 0, e, 32, key).tolist()) for e in range(20)]
    assert {len(samples) for samples in kept} == {32}
    assert set.union(*kept) == set(range(40))


@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.99), peak=st.floats(1e-6, 10))
def test_the_rate_rises_to_its_peak_then_falls_towards_zero(
    steps: int, warmup: float, peak: float
) -> None:
    schedule = loop.warmup_cosine(peak, steps, warmup)
    rates = [schedule(step) for step in range(1, steps + 1)]
    top = rates.index(max(rates))
    assert all(rate > 0 for rate in rates)
    assert max(rates) == pytest.approx(peak)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4), ("sqrt", 2), ("none", 1)])
def test_the_rate_scales_with_the_batch_by_a_named_rule(
    rule: Any, factor: float
) -> None:
    assert rates.peak_learning_rate(0.1, rule, 128, 32) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("adamw", {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}),
    ],
)
def test_only_the_undecayed_parameters_escape_weight_decay(
    name: Any, options: dict[str, Any]
) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    norm = list(model[1].parameters())
    optimizer = loop.make_optimizer(model, norm, name, weight_decay=0.1, **options)
    decay = {
        id(p): group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert [decay[id(p)] for p in model.parameters()] == [0.1, 0.1, 0.0, 0.0]
