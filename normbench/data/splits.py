"""Splits of data with a given test part, rare labels, copies, or fixed part sizes."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch

from normbench.data.base import Splits, random_split
from normbench.errors import RequestError


def consecutive_split(sizes: Mapping[str, int]) -> Splits:
    """Return parts of these sizes that follow each other, such as 0 1 2, 3 4, 5."""
    indices = torch.arange(sum(sizes.values())).split(list(sizes.values()))
    return dict(zip(sizes, indices, strict=True))


def held_out_split(
    training: int, test: int, *, val_fraction: float, generator: torch.Generator
) -> Splits:
    """Split the first `training` samples into a training and a validation part.

    The next `test` samples are the test part. Raises RequestError if a part would be
    empty.
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
    """Split samples so that training has every label, and each group is in one part.

    If `test` is given, the last `test` samples are the test part. Samples with equal
    values in `groups` are one group, for example copies of a picture. The samples are
    split by `random_split`, or by `held_out_split` if `test` is given. This split is
    returned if every group has one sample and the training part has every label.
    Otherwise the random order of this split is divided differently. Raises RequestError
    if a part would be empty or there are too few samples.
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
    has_copies = len(set(keys)) < count
    required = set(labels[:count])
    if not has_copies and required == {labels[i] for i in splits["train"].tolist()}:
        return splits
    # The concatenated parts give back the random order of the split.
    members: dict[Hashable, list[int]] = {}
    for i in torch.cat([splits[part] for part in parts]).tolist():
        members.setdefault(keys[i], []).append(i)
    sizes = [len(splits[part]) for part in parts]
    divided = _divide(list(members.values()), labels, sizes)
    if divided is None:
        different = f", {len(members)} of them different," if has_copies else ""
        raise RequestError(
            f"{count} samples{different} with {len(required)} labels are too few for "
            f"{len(parts)} parts, because the training part needs every label; add "
            "samples, or check that the labels are right"
        )
    return splits | dict(zip(parts, divided, strict=True))


def _divide(
    groups: list[list[int]], labels: Sequence[Hashable], sizes: Sequence[int]
) -> list[torch.Tensor] | None:
    """Divide `groups` of samples, in order, into parts of about `sizes` samples.

    The last part is the training part. While the training part lacks labels, one group
    with each missing label moves to the end of this part. Returns None if there are too
    few groups.
    """

    def labels_of(chosen: Sequence[list[int]]) -> set[Hashable]:
        return {labels[i] for group in chosen for i in group}

    required = labels_of(groups)
    ends = list(accumulate(sizes[:-1]))
    moved_labels: set[Hashable] = set()
    # The last part keeps all moved groups. So each pass moves groups for labels that no
    # earlier pass has moved, and the loop ends.
    while True:
        cuts = _cuts([len(group) for group in groups], ends, max(1, len(moved_labels)))
        if cuts is None:
            return None
        missing = required - labels_of(groups[cuts[-1] :])
        if not missing:
            return [
                torch.tensor([i for group in groups[start:end] for i in group])
                for start, end in pairwise([0, *cuts, len(groups)])
            ]
        for label in sorted(missing, key=str):
            moved_labels.add(label)
            last = max(
                k for k, group in enumerate(groups) if label in labels_of([group])
            )
            groups.append(groups.pop(last))


def _cuts(sizes: Sequence[int], ends: Sequence[int], least: int) -> list[int] | None:
    """Return the indices at which to cut a sequence of groups into parts.

    `sizes` are the numbers of samples in the groups. Each part ends as close as
    possible to its sample number in `ends`. Each part gets at least one group, and the
    last part at least `least` groups. Returns None if there are too few groups.
    """
    if len(sizes) < len(ends) + least:
        return None
    sums = [0, *accumulate(sizes)]
    cuts: list[int] = []
    for k, end in enumerate(ends):
        first = cuts[-1] + 1 if cuts else 1
        # Leave `least` groups for the last part, and one for each part between.
        last = len(sizes) - least - (len(ends) - 1 - k)
        cuts.append(min(range(first, last + 1), key=lambda cut: abs(sums[cut] - end)))
    return cuts
