"""The base class of data sets, and the types that they load."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from normbench.data.notes import Notes
from normbench.errors import RequestError
from normbench.registry import Registry

REGISTRY: "Registry[Data]" = Registry("data", "normbench.data")

Fraction = Annotated[float, Field(gt=0, lt=1)]
"""Type of an option that is a share of the samples."""

Splits = dict[str, Tensor]
"""Sample indices (int64, CPU) of the parts "train", "val" and "test".

No index is in two parts. The indices of a part are in random order: files are often
sorted by class, and a batch of a single class has other statistics than the batches
that a network is trained on.
"""


class ImageSource(ABC):
    """Images that are computed on request: augmented, or read from files.

    An image depends only on the options, the sample and the epoch. It depends neither
    on the other samples of the batch nor on earlier requests. Therefore a run sees the
    same images if it is resumed, accumulates gradients or uses several devices.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of all images together: (N, C, H, W)."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """Return the same images with batches on `device`."""

    @abstractmethod
    def batch(self, index: Tensor, epoch: int | None = None) -> Tensor:
        """Return the images of the samples `index` (B,) int64, which is on the CPU.

        The images are (B, C, H, W) float32 on the device of this source. They are
        augmented if an `epoch` (from 0) is given, and unchanged otherwise.
        """

    def expect(self, order: Tensor, epoch: int | None = None) -> None:
        """Announce the samples `order` (M,) that `batch` will be called for next.

        A source that reads files can then read ahead. The images do not depend on it.
        """
        return


@dataclass(frozen=True)
class Images:
    """Labelled images: `images` (N, C, H, W) float32, `labels` (N,) int64.

    `images` is an ImageSource if they are augmented or do not fit into memory.
    `quality` (N,) int64 is 0 for images of low quality and 1 for the others; it is None
    if all images have the same quality. `facts` are numbers that describe the data set,
    such as "skipped_images". `facts` and `notes` are copied into the record of a run.
    """

    images: Tensor | ImageSource
    labels: Tensor
    classes: tuple[str, ...]
    splits: Splits
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    quality: Tensor | None = None


@dataclass(frozen=True)
class Tokens:
    """Labelled token sequences.

    `tokens` (N, L) int64: each row is left-aligned and padded with `pad`; `lengths`
    (N,) int64, at least 1; `labels` (N,) int64. Token ids are below `vocab_size`.
    `facts` and `notes` are copied into the record of a run.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    vocab_size: int
    pad: int
    splits: Splits
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True)
class Photographs:
    """Square crops of photographs, and style pictures.

    `crops` (N, 3, H, W) float32 in [0, 1]; `styles` (S, 3, H', W') float32 in [0, 1].
    The network is to redraw crop i in style i mod S. `key` identifies the crops and
    styles in caches: equal keys mean equal tensors. `facts` and `notes` are copied into
    the record of a run. `shown` (K, 3, H", W") float32 in [0, 1] are photographs of
    which no crop is used for training or validation; the pictures of a run show them.
    Without them, the pictures show test crops.
    """

    crops: Tensor
    styles: Tensor
    key: str
    splits: Splits
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    shown: Tensor | None = None


SHOWN_SIDE = 256
"""The side, in pixels, of the photographs that the pictures of a run show."""


class Data(ABC):
    """A data set. The keyword-only parameters of its class are its options in yaml."""

    name: ClassVar[str]
    kind: ClassVar[type]
    """The type that `load` returns: Images, Tokens or Photographs."""
    path_options: ClassVar[frozenset[str]] = frozenset()
    """Options that name the user's files. The run id contains the option `fingerprint`,
    a hash of the contents of these files, instead of these options."""
    not_hashed: ClassVar[frozenset[str]] = frozenset()
    """Further options that the run id does not contain. They do not change the samples,
    or `fingerprint` covers what they change."""
    known_content: ClassVar[str | None] = None
    """For data in a package or in this program: the expected value of `hash_files`. In
    a run id, a null `fingerprint` stands for this value. Never change it: runs on other
    data would get the ids of earlier runs."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that read, decode, scale or tokenise the data. A record contains their
    versions, and a verdict warns if its runs used several versions."""

    def __init_subclass__(cls, name: str | None, **kwargs: Any) -> None:
        """Register the class under `name`; a base class of data sets has no name."""
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            REGISTRY.add(name, cls)

    def hash_files(self) -> str:
        """Return a hash of everything that the samples are made from, without paths.

        Composing a config sets the option `fingerprint`, which is part of the run id,
        to this hash. The option stays null if the hash equals `known_content`. Every
        command computes the hash, so it must be fast: hash the files as they are, or
        the way in which samples are drawn. Raises RequestError if a file cannot be
        read.
        """
        raise RequestError(
            f"data={self.name} has the option fingerprint, and its class "
            f"{type(self).__name__} has no method hash_files"
        )

    def require_content(self, fingerprint: str | None) -> None:
        """Raise RequestError if the data differ from those that the run asked for.

        For example, this machine may have another version of a package. `fingerprint`
        is the option; None stands for `known_content`.
        """
        expected, actual = fingerprint or self.known_content, self.hash_files()
        if actual != expected:
            packages = " and ".join(self.packages) or "torch"
            raise RequestError(
                f"data={self.name} differs on this machine: the run asks for "
                f"data.fingerprint={expected}, and the data have {actual}; install the "
                f"version of {packages} that the run was configured with"
            )

    @abstractmethod
    def load(self, seed: int) -> Any:
        """Return the whole data set on the CPU; `seed` decides the split.

        The result depends only on the options and the seed, never on the global random
        state. Raises RequestError if a file is missing, has the wrong format or does
        not match the option `fingerprint`.
        """


def random_split(
    count: int,
    *,
    val_fraction: float,
    test_fraction: float,
    generator: torch.Generator,
    unit: str = "samples",
) -> Splits:
    """Return a random split of `count` samples into three parts.

    The part "test" does not depend on `val_fraction`. Raises RequestError if a part
    would be empty; the message calls the samples `unit`.
    """
    test, val = round(count * test_fraction), round(count * val_fraction)
    if min(test, val, count - test - val) < 1:
        raise RequestError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} "
            f"leave a part of the {count} {unit} empty; "
            "both must be above 0 and their sum below 1"
        )
    order = torch.randperm(count, generator=generator)
    return {
        "train": order[test + val :],
        "val": order[test : test + val],
        "test": order[:test],
    }
