"""The split of data of the user's own, where labels are rare and files are copied."""

from collections.abc import Hashable, Sequence
from itertools import accumulate

import torch

from normbench.data.base import Splits, given_split
from normbench.errors import RequestError


def drawn(
    labels: Sequence[Hashable],
    test: int | None = None,
    *,
    same: Sequence[Hashable] | None = None,
    val_fraction: float,
    test_fraction: float,
    generator: torch.Generator,
) -> Splits:
    """A split of samples with these `labels`, of which the last `test` are given.

    It is that of `given_split`, unless the training part would lack a label that is
    drawn from, or samples that are the `same` (their keys are equal) would be in
    several parts. Then the same random order is cut elsewhere: samples that are the
    same come where the first of them is, a sample of each lacking label comes last,
    into the training part, and each cut falls between samples that differ. Raises
    RequestError as `given_split` does, and where there are too few samples for that.
    """
    training = len(labels) - (test or 0)
    splits = given_split(
        training,
        test,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        generator=generator,
    )
    parts = ["val", "train"] if test is not None else ["test", "val", "train"]
    keys = range(training) if same is None else same[:training]
    wanted = set(labels[:training])
    copied = len(set(keys)) < training
    if not copied and wanted == {labels[i] for i in splits["train"].tolist()}:
        return splits
    groups: dict[Hashable, list[int]] = {}
    for i in torch.cat([splits[part] for part in parts]).tolist():
        groups.setdefault(keys[i], []).append(i)
    order = list(groups.values())
    ends = list(accumulate(len(splits[part]) for part in parts[:-1]))
    last: set[Hashable] = set()
    for _ in range(len(wanted) + 1):
        cuts = _cuts([len(group) for group in order], ends, max(1, len(last)))
        if cuts is None:
            break
        present = {labels[i] for group in order[cuts[-1] :] for i in group}
        if present == wanted:
            bounds = zip([0, *cuts], [*cuts, len(order)], strict=True)
            cut = [[i for group in order[a:b] for i in group] for a, b in bounds]
            found = {p: torch.tensor(c) for p, c in zip(parts, cut, strict=True)}
            return splits | found
        for lacking in sorted(wanted - present, key=str):
            last.add(lacking)
            has = (any(labels[i] == lacking for i in group) for group in order)
            order.append(order.pop(max(k for k, own in enumerate(has) if own)))
    distinct = "" if not copied else f", {len(order)} of them different,"
    raise RequestError(
        f"{training} samples{distinct} with {len(wanted)} labels are too few for "
        f"{len(parts)} parts, of which training has every label; add samples, or check "
        "that the label is what you meant"
    )


def _cuts(sizes: Sequence[int], ends: Sequence[int], kept: int) -> list[int] | None:
    """Where to cut groups of `sizes`, in order, so that parts end as near to `ends` as
    they can: each with a group or more, the last with `kept` or more.

    None where there are too few groups.
    """
    if len(sizes) < len(ends) + kept:
        return None
    sums = [0, *accumulate(sizes)]
    cuts: list[int] = []
    for k, end in enumerate(ends):
        first = cuts[-1] + 1 if cuts else 1
        beyond = len(sizes) - kept - (len(ends) - 1 - k)
        allowed = range(first, beyond + 1)
        cuts.append(min(allowed, key=lambda cut: abs(sums[cut] - end)))
    return cuts
