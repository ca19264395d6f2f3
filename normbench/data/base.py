"""The contract of a data set: whole tensors, and a split drawn from the seed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from normbench.registry import Registry

REGISTRY: "Registry[Data]" = Registry("data", "normbench.data")

Splits = dict[str, Tensor]
"""Sample indices (int64, CPU) of "train", "val" and "test"; they are disjoint."""


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
