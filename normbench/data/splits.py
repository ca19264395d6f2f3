"""Splits of data that come with a test part, with rare labels, or with copies."""

from collections.abc import Hashable, Sequence
from itertools import accumulate

import torch

from normbench.data.base import Splits, random_split
from normbench.errors import RequestError


def held_out_split(
    training: int, test: int, *, val_fraction: float, generator: torch.Generator
) -> Splits:
    """Split `training` samples, which are followed by `test` given test samples.

    "val" is drawn from the former. Raises RequestError if a part would be empty.
    """
    val = round(training * val_fraction)
    if min(val, training - val, test) < 1:
        raise RequestError(
            f"data.val_fraction={val_fraction} leaves a part of the {training} "
            f"training and {test} test samples empty; it must be above 0 and below 1"
        )
    order = torch.randperm(training, generator=generator)
    return {
        "train": order[val:],
        "val": order[:val],
        "test": training + torch.randperm(test, generator=generator),
    }


def grouped_split(
    labels: Sequence[Hashable],
    test: int | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    val_fraction: float,
    test_fraction: float,
    generator: torch.Generator,
) -> Splits:
    """Split samples with these `labels`, of which the last `test` are given.

    The split is that of `random_split` or, with given test samples, `held_out_split`,
    unless the training part would lack a label, or samples of one of the `groups`
    (equal keys) would be in several parts. Then the same random order is cut elsewhere:
    a group takes the place of its first sample, a sample of each missing label moves to
    the end, which is the training part, and every cut falls between groups. Raises
    RequestError if a part would be empty or the samples are too few for that.
    """
    count = len(labels) - (test or 0)
    if test is None:
        parts = ["test", "val", "train"]
        splits = random_split(
            count,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            generator=generator,
        )
    else:
        parts = ["val", "train"]
        splits = held_out_split(
            count, test, val_fraction=val_fraction, generator=generator
        )
    keys = range(count) if groups is None else groups[:count]
    wanted = set(labels[:count])
    has_copies = len(set(keys)) < count
    if not has_copies and wanted == {labels[i] for i in splits["train"].tolist()}:
        return splits
    members: dict[Hashable, list[int]] = {}
    for i in torch.cat([splits[part] for part in parts]).tolist():
        members.setdefault(keys[i], []).append(i)
    order = list(members.values())
    ends = list(accumulate(len(splits[part]) for part in parts[:-1]))
    moved: set[Hashable] = set()
    for _ in range(len(wanted) + 1):
        cuts = _cuts([len(group) for group in order], ends, max(1, len(moved)))
        if cuts is None:
            break
        missing = wanted - {labels[i] for group in order[cuts[-1] :] for i in group}
        if not missing:
            bounds = zip(parts, [0, *cuts], [*cuts, len(order)], strict=True)
            return splits | {
                part: torch.tensor([i for group in order[a:b] for i in group])
                for part, a, b in bounds
            }
        for label in sorted(missing, key=str):
            moved.add(label)
            last = max(
                k
                for k, group in enumerate(order)
                if label in (labels[i] for i in group)
            )
            order.append(order.pop(last))
    different = f", {len(order)} of them different," if has_copies else ""
    raise RequestError(
        f"{count} samples{different} with {len(wanted)} labels are too few for "
        f"{len(parts)} parts, as training needs every label; add samples, or check "
        "that the label is what you meant"
    )


def _cuts(sizes: Sequence[int], ends: Sequence[int], least: int) -> list[int] | None:
    """Return where to cut groups of `sizes` so that parts end as near as possible to
    `ends`: each part with a group or more, the last with `least` or more.

    None if there are too few groups.
    """
    if len(sizes) < len(ends) + least:
        return None
    sums = [0, *accumulate(sizes)]
    cuts: list[int] = []
    for k, end in enumerate(ends):
        first = cuts[-1] + 1 if cuts else 1
        last = len(sizes) - least - (len(ends) - 1 - k)
        cuts.append(min(range(first, last + 1), key=lambda cut: abs(sums[cut] - end)))
    return cuts
