"""Find the classes in folders of the user's: a folder of images for each class."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from normbench.data.notes import Notes, class_notes
from normbench.data.reading.files import shortened, shown
from normbench.data.reading.listing import Listing, listed
from normbench.errors import RequestError

TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval")
"""Words, in lower case, in the names of folders that are parts of a data set and no
classes. The earliest of HELD_OUT that is present is proposed as the test part."""

OPTIONS = ("data.path", "data.test_path")


class Sample(NamedTuple):
    """An image of the class `name` below `root`."""

    root: Path
    name: str
    path: Path


class Layout(NamedTuple):
    """The samples below all roots, sorted by root and path, and a listing of each."""

    samples: list[Sample]
    listings: list[Listing]

    def left_out(self) -> int:
        """Count the files that are no pictures by their names."""
        return sum(listing.others.total() for listing in self.listings)

    def notes(self, kept: Sequence[Sample]) -> Notes:
        """Describe the classes of the samples `kept`, and what is left out."""
        notes = Notes()
        for option, listing in zip(OPTIONS, self.listings, strict=False):
            names = [sample.name for sample in kept if sample.root == listing.root]
            classes = class_notes(names, option)
            if option != OPTIONS[0]:  # a small test part is no mistake
                classes = Notes(classes.understood)
            warnings = []
            if listing.empty:
                empty = shortened(_without_picture(listing, n) for n in listing.empty)
                warnings.append(
                    f"{option}: folders without a picture, which are no classes: "
                    f"{empty}"
                )
            if parts := _parts(sorted(set(names))):
                warnings.append(
                    f"{option}: {shortened(parts)} is taken for a class, and has the "
                    "name of a part of a data set"
                )
            notes = notes.plus(
                classes, listing.notes(option), Notes((), tuple(warnings))
            )
        return notes


def layout(roots: Sequence[Path]) -> Layout:
    """Find the samples in the folder of training images and, if `roots` has a second
    one, in the folder of test images.

    Raises RequestError if a folder does not have the layout ROOT/CLASS/image.jpg.
    """
    listings = [listed(root) for root in roots]
    samples: list[Sample] = []
    for option, listing in zip(OPTIONS, listings, strict=False):
        root, paths = listing.root, listing.pictures
        loose = [shown(path.name) for path in paths if path.parent == root]
        if loose or not paths:
            others = f", but {listing.left_out()}" if listing.others else ""
            problem = f"has images of no class ({shortened(loose)})"
            raise RequestError(
                f"{root} {problem if loose else f'has no images{others}'}; its layout "
                "must be a folder for each class: CLASS/image.jpg"
            )
        _require_classes(option, listing)
        samples += [Sample(root, p.relative_to(root).parts[0], p) for p in paths]
    names = {sample.name for sample in samples if sample.root == roots[0]}
    if len(names) < 2:
        raise _only_class(listings[0], *names)
    unseen = sorted({sample.name for sample in samples} - names)
    if unseen:
        raise RequestError(
            f"{roots[-1]} has classes that {roots[0]} lacks: "
            f"{shortened(map(shown, unseen))}"
        )
    return Layout(samples, listings)


def _only_class(listing: Listing, name: str) -> RequestError:
    root = listing.root
    below = {path.relative_to(root).parts[1] for path in listing.pictures}
    hint = ""
    if len(below) > 1 and all((root / name / inner).is_dir() for inner in below):
        hint = f"; or are the classes in it? data.path={root / shown(name)}"
    return RequestError(f"{root} has one class, {shown(name)}; there must be two{hint}")


def _require_classes(option: str, listing: Listing) -> None:
    """Raise RequestError if the folders are parts of a data set, such as train."""
    root = listing.root
    below: dict[str, set[str]] = defaultdict(set)
    for path in listing.pictures:
        name, *rest = path.relative_to(root).parts
        below[name].add(rest[0] if rest[1:] else "")
    parts = _parts(below)
    nested = [name for name in parts if "" not in below[name]]
    if len(parts) < len(below) and len(nested) < 2:
        return
    problem = (
        f"{root} has the folders {shortened(parts)}, which are parts and no classes"
    )
    if not nested:
        raise RequestError(
            f"{problem}; its layout must be a folder for each class: CLASS/image.jpg"
        )
    first, *others = nested
    use = f"{option}={root / first}"
    is_training = any(word in first.lower() for word in TRAINING)
    if option == OPTIONS[0] and is_training and others:
        use += f" {OPTIONS[1]}={root / others[0]}"
    raise RequestError(f"{problem}; name the folder of one: {use}")


def _parts(names: Iterable[str]) -> list[str]:
    """Return those of `names` that are parts of a data set, training first."""
    known = [*TRAINING, *HELD_OUT]
    ranks = {
        name: min(map(known.index, words))
        for name in names
        # Such as test_set, train2017, images-val.
        if (words := set(re.findall("[a-z]+", name.lower())) & set(known))
    }
    return sorted(ranks, key=lambda name: ranks[name])


def _without_picture(listing: Listing, name: str) -> str:
    others = listing.left_out(name)
    return f"{shown(name)} ({others})" if others else shown(name)
