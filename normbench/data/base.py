"""The contract of a data set: samples by their index, and a split from the seed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from normbench.data.notes import Notes
from normbench.errors import RequestError
from normbench.registry import Registry

REGISTRY: "Registry[Data]" = Registry("data", "normbench.data")

Fraction = Annotated[float, Field(gt=0, lt=1)]
"""The type of an option that is a share of the samples."""

Splits = dict[str, Tensor]
"""Sample indices (int64, CPU) of "train", "val" and "test".

They are disjoint, and each is in random order: files are often sorted by class, and a
batch of one class has statistics that no training batch had.
"""


class ImageSource(ABC):
    """Images that are made when they are asked for: augmented, or read from files.

    What it gives is a function of its options, the sample and the epoch alone, whatever
    batch the sample is in and whatever was asked for before: so a run that is resumed,
    accumulates or is spread over devices sees the same pictures.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W), as of a tensor."""

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same images, given on `device`."""

    @abstractmethod
    def batch(self, index: Tensor, epoch: int | None = None) -> Tensor:
        """Samples `index` (B,) int64, CPU: (B, C, H, W) float32 on the device.

        With an `epoch` (from 0), as they are trained on in it; without, as they are.
        """

    def expect(self, order: Tensor, epoch: int | None = None) -> None:
        """Batches that will be asked for with `epoch` come in this order (M,).

        A source that reads files can begin to. Nothing depends on it but the time.
        """
        return


@dataclass(frozen=True)
class Images:
    """Labelled images: `images` (N, C, H, W) float32, `labels` (N,) int64.

    Where images are augmented or too many for the memory, `images` is their source.
    `facts` and `notes` are what the record says of them.
    """

    images: Tensor | ImageSource
    labels: Tensor
    classes: tuple[str, ...]
    splits: Splits
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True)
class Tokens:
    """Labelled token sequences.

    `tokens` (N, L) int64, each row left-aligned and filled up with `pad`; `lengths`
    (N,) int64, at least 1; `labels` (N,) int64. Token ids are below `vocab_size`.
    `facts` and `notes` are what the record says of them.
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
    Crop i is to be drawn in style i mod S.
    `key` identifies their pixels: the same key, the same tensors. `facts` and `notes`
    are what the record says of them.
    """

    crops: Tensor
    styles: Tensor
    key: str
    splits: Splits
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)


class Data(ABC):
    """Where samples come from; keyword-only parameters are what a yaml may set."""

    name: ClassVar[str]
    kind: ClassVar[type]
    """What `load` returns: Images, Tokens or Photographs."""
    path_options: ClassVar[frozenset[str]] = frozenset()
    """Options that say where the user's files are. The option `fingerprint`, a hash of
    what is in them, is in the id of a run in their place."""
    not_hashed: ClassVar[frozenset[str]] = frozenset()
    """More options that are not in the id: of how those files are found and read."""
    known_content: ClassVar[str | None] = None
    """Of data inside a package or this program: the `hash_files` that the id of a run
    stands for where the option `fingerprint` is null. It is set once: with a new value,
    runs on new data would have the ids of runs on old ones."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that read, decode, scale or tokenise the data. A record has their
    versions, and a verdict says where its runs have several."""

    def __init_subclass__(cls, name: str | None, **kwargs: Any) -> None:
        """Register a data set; one without a name is a base of others."""
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            REGISTRY.add(name, cls)

    def hash_files(self) -> str:
        """A hash of all that the data are made of, and of no path.

        When a config is composed it fills the option `fingerprint`, which is in the
        identity of a run; of the user's files, in the place of `path_options` and
        `not_hashed`. Where it equals `known_content`, the option stays null and the id
        has none. It must be cheap, as every command asks for it: of the files as they
        are, or of how samples are drawn. Raises RequestError where a file cannot be
        read.
        """
        raise RequestError(
            f"data={self.name} has the option fingerprint, and its class "
            f"{type(self).__name__} has no method hash_files"
        )

    def require_content(self, fingerprint: str | None) -> None:
        """Raise RequestError where a run was asked for with other content than is here.

        Such as on a machine with another version of a package. `fingerprint` is the
        option; null stands for `known_content`.
        """
        wanted, found = fingerprint or self.known_content, self.hash_files()
        if found != wanted:
            needed = " and ".join(self.packages) or "torch"
            raise RequestError(
                f"data={self.name} is not what this run was asked for with: "
                f"data.fingerprint={wanted}, and here it is {found}; install the "
                f"version of {needed} that was there"
            )

    @abstractmethod
    def load(self, seed: int) -> Any:
        """The whole data set on the CPU, split by `seed`.

        Depends on nothing but the options and the seed (never on the global random
        state), and is of the content that the option `fingerprint` names. Raises
        RequestError where a file is missing, of the wrong form or of other content.
        """


def package_version(package: str) -> str:
    """The installed version of a package that has data in it.

    Raises RequestError where it is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        raise RequestError(
            f"the data come inside the package {package}, which is not installed; "
            f"pip install {package}"
        ) from None


def random_split(
    count: int,
    *,
    val_fraction: float,
    test_fraction: float,
    generator: torch.Generator,
) -> Splits:
    """Draw a split of `count` samples; what is not "val" or "test" is "train".

    The same generator state gives the same "test" whatever `val_fraction` is. Raises
    RequestError where a part would be empty.
    """
    test, val = round(count * test_fraction), round(count * val_fraction)
    if min(test, val, count - test - val) < 1:
        raise RequestError(
            f"data.val_fraction={val_fraction} and data.test_fraction={test_fraction} "
            f"leave a part of the {count} samples empty; "
            "both must be above 0 and their sum below 1"
        )
    order = torch.randperm(count, generator=generator)
    return {
        "train": order[test + val :],
        "val": order[test : test + val],
        "test": order[:test],
    }
