"""The contract of a data set: whole tensors, and a split drawn from the seed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

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


@dataclass(frozen=True)
class Images:
    """Labelled images: `images` (N, C, H, W) float32, `labels` (N,) int64."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    splits: Splits


@dataclass(frozen=True)
class Tokens:
    """Labelled token sequences.

    `tokens` (N, L) int64, each row left-aligned and filled up with `pad`; `lengths`
    (N,) int64, at least 1; `labels` (N,) int64. Token ids are below `vocab_size`.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    vocab_size: int
    pad: int
    splits: Splits


@dataclass(frozen=True)
class Photographs:
    """Square crops of photographs, and style pictures.

    `crops` (N, 3, H, W) float32 in [0, 1]; `styles` (S, 3, H', W') float32 in [0, 1].
    Crop i is to be drawn in style i mod S.
    `key` identifies their pixels: the same key, the same tensors.
    """

    crops: Tensor
    styles: Tensor
    key: str
    splits: Splits


class Data(ABC):
    """Where samples come from; keyword-only parameters are what a yaml may set."""

    name: ClassVar[str]
    kind: ClassVar[type]
    """What `load` returns: Images, Tokens or Photographs."""

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name
        REGISTRY.add(name, cls)

    @abstractmethod
    def load(self, seed: int) -> Any:
        """The whole data set on the CPU, split by `seed`.

        Depends on nothing but the options and the seed (never on the global random
        state). Raises RequestError where a file is missing or of the wrong form.
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
