"""Generated texts: fixed content, lengths with a heavy tail, and the chains."""

import numpy as np
import pytest
import torch

from normbench.data import language
from normbench.data.language import (
    ALPHABET,
    Language,
    length_weights,
    transitions,
    written,
)


def test_the_texts_are_the_same_for_every_seed_count_and_machine() -> None:
    first, second = Language().load(0), Language().load(1)
    assert torch.equal(first.tokens, second.tokens)
    assert not torch.equal(first.splits["test"], second.splits["test"])
    fewer = Language(samples=50).load(0)
    assert torch.equal(fewer.tokens, first.tokens[:50])
    assert torch.equal(fewer.lengths, first.lengths[:50])
    # The tables of a language do not depend on the number of languages.
    assert np.array_equal(transitions(2), transitions(8)[:2])
    numbers = language._numbers(20, 3)
    assert numbers.tolist() == [
        2583244801918194877,
        4253327668084041039,
        1122666008844114232,
    ]


def test_tokens_and_lengths() -> None:
    data = Language().load(0)
    assert data.tokens.shape == (8000, 64)
    assert data.tokens.dtype == data.lengths.dtype == data.labels.dtype == torch.int64
    real = torch.arange(64) < data.lengths[:, None]
    assert torch.equal(data.tokens != data.pad, real)
    assert data.tokens.max() == ALPHABET == data.vocab_size - 1
    assert torch.bincount(data.labels).tolist() == [1000] * 8
    assert len(set(data.classes)) == 8
    assert len(set(map(tuple, data.tokens.tolist()))) == 8000  # no text is there twice


def test_most_texts_are_short_and_a_few_are_long() -> None:
    lengths = Language().load(0).lengths.numpy()
    quantiles = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1])
    assert quantiles.tolist() == [8, 10, 13, 22, 36, 47, 60, 64]  # of the docstring
    assert (lengths == 64).sum() == 18
    expected = length_weights() / length_weights().sum() * len(lengths)
    observed = np.bincount(lengths, minlength=65)[8:]
    squared = (observed - expected) ** 2 / expected
    assert squared.sum() < 57 + 4 * np.sqrt(2 * 57)  # chi squared, 56 degrees


def test_the_labels_can_be_read_from_the_texts() -> None:
    """A classifier that knows the chains is nearly right, and one that counts is not.

    It sums over the two tokens before a text, which are uniform.
    """
    tokens, lengths = written(8, 8000)
    labels, x = np.arange(8000) % 8, np.maximum(tokens - 1, 0)
    weights = transitions(8)
    p = weights / weights.sum(3, keepdims=True)
    start = np.einsum("labc,lbcd->lcd", p, p) / ALPHABET**2
    likelihood = np.log(start)[:, x[:, 0], x[:, 1]].T
    for t in range(2, 64):
        step = np.log(p)[:, x[:, t - 2], x[:, t - 1], x[:, t]].T
        likelihood += np.where(t < lengths[:, None], step, 0)
    wrong = likelihood.argmax(1) != labels
    assert wrong.mean() == pytest.approx(0.045, abs=0.001)  # in a docstring
    assert wrong[lengths < 13].mean() > 10 * wrong[lengths >= 20].mean()
    counts = np.stack([(tokens == 1 + c).sum(1) for c in range(ALPHABET)], 1)
    totals = np.stack([counts[labels == k].sum(0) for k in range(8)]) + 1
    by_count = counts @ np.log(totals / totals.sum(1, keepdims=True)).T
    assert 0.13 < (by_count.argmax(1) != labels).mean() < 0.16


def test_a_table_drawn_otherwise_changes_the_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Language().hash_files() == Language.known_content
    monkeypatch.setattr(language, "GAP", (1, 3))
    assert Language().hash_files() != Language.known_content
    monkeypatch.undo()
    monkeypatch.setattr(language, "MIN_LENGTH", 9)
    assert Language().hash_files() != Language.known_content
