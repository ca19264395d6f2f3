"""A folder of the user's with a folder of images for each class: what is what in it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from normbench.data.notes import Notes, of_classes
from normbench.data.reading.files import shortened, shown
from normbench.data.reading.listing import Listing, listed
from normbench.errors import RequestError

TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval")
"""Names, in lower case, of folders that are parts of a data set and no classes. Of the
latter, the first that is there is proposed for the test part."""

OPTIONS = ("data.path", "data.test_path")


class Sample(NamedTuple):
    """An image of the class `name` below `root`."""

    root: Path
    name: str
    path: Path


class Layout(NamedTuple):
    """The samples of all roots, by root and then by name, and what is in the roots."""

    samples: list[Sample]
    listings: list[Listing]

    def left_out(self) -> int:
        """How many files are no images by their names."""
        return sum(listing.others.total() for listing in self.listings)


def layout(roots: Sequence[Path]) -> Layout:
    """Everything that is named as a picture in the folder of training images and, where
    there is a second of `roots`, in that of test images.

    Raises RequestError where one has another layout than ROOT/CLASS/image.jpg.
    """
    listings = [listed(root) for root in roots]
    samples: list[Sample] = []
    for option, listing in zip(OPTIONS, listings, strict=False):
        root, paths = listing.root, listing.pictures
        loose = [shown(path.name) for path in paths if path.parent == root]
        if loose or not paths:
            there = f", but {listing.why()}" if listing.others else ""
            found = f"has images of no class ({shortened(loose)})"
            raise RequestError(
                f"{root} {found if loose else f'has no images{there}'}; its layout "
                "must be a folder for each class: CLASS/image.jpg"
            )
        _require_classes(option, listing)
        samples += [Sample(root, p.relative_to(root).parts[0], p) for p in paths]
    names = {sample.name for sample in samples if sample.root == roots[0]}
    if len(names) < 2:
        [only] = names
        below = {p.relative_to(roots[0]).parts[1] for p in listings[0].pictures}
        inside = (
            f"; or are the classes in it? data.path={roots[0] / shown(only)}"
            if len(below) > 1 and all((roots[0] / only / b).is_dir() for b in below)
            else ""
        )
        raise RequestError(
            f"{roots[0]} has one class, {shown(only)}; there must be two{inside}"
        )
    unseen = sorted({sample.name for sample in samples} - names)
    if unseen:
        raise RequestError(
            f"{roots[-1]} has classes that {roots[0]} lacks: "
            f"{shortened(map(shown, unseen))}"
        )
    return Layout(samples, listings)


def _require_classes(option: str, listing: Listing) -> None:
    """Raise RequestError where the folders are parts of a data set, such as train."""
    root = listing.root
    below: dict[str, set[str]] = defaultdict(set)
    for path in listing.pictures:
        name, *rest = path.relative_to(root).parts
        below[name].add(rest[0] if rest[1:] else "")
    parts = _parts(below)
    nested = [name for name in parts if "" not in below[name]]
    if len(parts) < len(below) and len(nested) < 2:
        return
    told = f"{root} has the folders {shortened(parts)}, which are parts and no classes"
    if not nested:
        raise RequestError(
            f"{told}; its layout must be a folder for each class: CLASS/image.jpg"
        )
    first, *others = nested
    use = f"{option}={root / first}"
    is_training = any(word in first.lower() for word in TRAINING)
    if option == OPTIONS[0] and is_training and others:
        use += f" {OPTIONS[1]}={root / others[0]}"
    raise RequestError(f"{told}; name the folder of one: {use}")


def _parts(names: Iterable[str]) -> list[str]:
    """Those of `names` that are of parts, training first."""
    known = [*TRAINING, *HELD_OUT]
    ranks = {
        name: min(map(known.index, words))
        for name in names
        # Such as test_set, train2017, images-val.
        if (words := set(re.findall("[a-z]+", name.lower())) & set(known))
    }
    return sorted(ranks, key=lambda name: ranks[name])


def of_layout(found: Layout, kept: Sequence[Sample]) -> Notes:
    """What a layout was understood as: its classes, what is left out, and why.

    `kept` are the samples that can be read.
    """
    understood: list[str] = []
    warnings: list[str] = []
    for option, listing in zip(OPTIONS, found.listings, strict=False):
        names = [sample.name for sample in kept if sample.root == listing.root]
        notes = of_classes(names, option)
        understood += notes.understood
        if option == OPTIONS[0]:
            warnings += notes.warnings
        notes = of_listing(listing, option)
        understood += notes.understood
        if empty := [_without_picture(listing, name) for name in listing.empty]:
            told = f"{option}: folders without a picture, which are no classes: "
            warnings.append(told + shortened(empty))
        if parts := _parts(sorted(set(names))):
            warnings.append(
                f"{option}: {shortened(parts)} is taken for a class, and has the name "
                "of a part of a data set"
            )
    return Notes(tuple(understood), tuple(warnings))


def _without_picture(listing: Listing, name: str) -> str:
    why = listing.why(name)
    return f"{shown(name)} ({why})" if why else shown(name)


def of_listing(listing: Listing, option: str) -> Notes:
    """Which files in a folder are left out, and why."""
    why = [listing.why()] if listing.others else []
    if listing.hidden:
        why.append(f"{listing.hidden} hidden or of an operating system")
    return Notes((f"{option}: left out {', '.join(why)}",) if why else ())
