"""Find the classes in the user's folders, with one folder of images per class."""

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
"""Words that mark a folder as a part of a data set, not as a class. If several HELD_OUT
parts exist, the error message proposes the part whose word is first in this list as the
test part."""

OPTIONS = ("data.path", "data.test_path")
LAYOUT = "its layout must be one folder per class: CLASS/image.jpg"


class Sample(NamedTuple):
    """An image in the folder `root`, of the class `name`."""

    root: Path
    name: str
    path: Path


class Layout(NamedTuple):
    """The samples of all roots, sorted by root and path, and a listing per root."""

    samples: list[Sample]
    listings: list[Listing]

    def left_out(self) -> int:
        """Return the number of files that are not pictures."""
        return sum(listing.others.total() for listing in self.listings)

    def notes(self, kept: Sequence[Sample]) -> Notes:
        """Describe the classes of the readable samples `kept`, and what is left out."""
        notes = Notes()
        # Not strict, because there may be no test folder.
        for option, listing in zip(OPTIONS, self.listings, strict=False):
            names = [sample.name for sample in kept if sample.root == listing.root]
            classes = class_notes(names, option)
            if option != OPTIONS[0]:  # a test part may be small, so no warning
                classes = Notes(classes.understood)
            warnings = []
            if listing.empty:
                empty = shortened(_without_picture(listing, n) for n in listing.empty)
                warnings.append(
                    f"{option}: folders without pictures are not classes: {empty}"
                )
            if parts := _parts(sorted(set(names))):
                warnings.append(
                    f"{option}: {shortened(parts)} is used as a class, although the "
                    "name is usual for a part of a data set"
                )
            mistakes = Notes(warnings=tuple(warnings))
            notes = notes.plus(classes, listing.notes(option), mistakes)
        return notes


def layout(roots: Sequence[Path]) -> Layout:
    """Find the samples in the training folder and, if there is one, in the test folder.

    `roots` has the training folder first and the test folder second. Raises
    RequestError if a folder does not have the layout ROOT/CLASS/image.jpg.
    """
    listings = [listed(root) for root in roots]
    samples: list[Sample] = []
    for option, listing in zip(OPTIONS, listings, strict=False):
        root, paths = listing.root, listing.pictures
        loose = [shown(path.name) for path in paths if path.parent == root]
        if loose or not paths:
            others = f", only {listing.left_out()}" if listing.others else ""
            problem = f"has no images{others}"
            if loose:
                problem = f"has images outside of class folders ({shortened(loose)})"
            raise RequestError(f"{root} {problem}; {LAYOUT}")
        _require_classes(option, listing)
        samples += [Sample(root, p.relative_to(root).parts[0], p) for p in paths]
    names = {sample.name for sample in samples if sample.root == roots[0]}
    if len(names) < 2:  # there is exactly one name, because `pictures` is not empty
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
    inner_names = {path.relative_to(root).parts[1] for path in listing.pictures}
    hint = ""
    # If all images are in several subfolders, the subfolders may be the classes.
    if len(inner_names) > 1 and all(
        (root / name / inner).is_dir() for inner in inner_names
    ):
        hint = (
            f"; if its subfolders are the classes, use data.path={root / shown(name)}"
        )
    return RequestError(
        f"{root} has only one class, {shown(name)}; at least two are needed{hint}"
    )


def _require_classes(option: str, listing: Listing) -> None:
    """Raise RequestError if the folders are parts of a data set, such as train."""
    root = listing.root
    # This dict maps each folder to the names of its subfolders that contain pictures.
    # The name "" stands for pictures that are in the folder itself.
    subfolders: dict[str, set[str]] = defaultdict(set)
    for path in listing.pictures:
        name, *rest = path.relative_to(root).parts
        subfolders[name].add(rest[0] if rest[1:] else "")
    parts = _parts(subfolders)
    # A nested part has all its pictures in subfolders, as a part with classes has.
    nested = [name for name in parts if "" not in subfolders[name]]
    # A class may have such a name, if another folder has no such name and at most one
    # of these parts is nested.
    if len(parts) < len(subfolders) and len(nested) < 2:
        return
    problem = f"{root} has the folders {shortened(parts)}, which are parts, not classes"
    if not nested:
        raise RequestError(f"{problem}; {LAYOUT}")
    first, *others = nested
    proposal = f"{option}={root / first}"
    is_training = any(word in first.lower() for word in TRAINING)
    if option == OPTIONS[0] and is_training and others:
        proposal += f" {OPTIONS[1]}={root / others[0]}"
    raise RequestError(f"{problem}; name the folder of one part: {proposal}")


def _parts(names: Iterable[str]) -> list[str]:
    """Return the `names` that mark parts, such as "train2017"; training comes first."""
    part_words = [*TRAINING, *HELD_OUT]
    ranks: dict[str, int] = {}
    for name in names:
        words = set(re.findall("[a-z]+", name.lower())) & set(part_words)
        if words:
            ranks[name] = min(map(part_words.index, words))
    return sorted(ranks, key=lambda name: ranks[name])


def _without_picture(listing: Listing, name: str) -> str:
    others = listing.left_out(name)
    return f"{shown(name)} ({others})" if others else shown(name)
