"""Images that are decoded from their files while a run needs them."""

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from normbench.data.base import ImageSource
from normbench.data.reading.augmentation import Augmentation, augmented, standardised
from normbench.data.reading.pictures import UnreadablePicture, centre_square
from normbench.errors import NormbenchError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The usual constants: of the training images of ImageNet, in [0, 1]."""

AHEAD = 32
"""Images that each worker decodes in advance."""


class ImageFiles(ImageSource):
    """Images in files, scaled and cut to squares, standardised by MEAN and STD.

    `workers` threads decode ahead in the order that `expect` names. An image that is
    requested out of order is decoded at once.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        augment: Sequence[Augmentation],
        seed: int,
        workers: int,
    ) -> None:
        self._paths, self._size, self._workers = paths, size, workers
        self._augment, self._seed = augment, seed
        self._device = torch.device("cpu")
        self._ahead: dict[int | None, _Ahead] = {}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._paths), 3, self._size, self._size

    def to(self, device: torch.device) -> Self:
        moved = copy.copy(self)
        moved._device, moved._ahead = device, {}
        return moved

    def expect(self, order: Tensor, epoch: int | None = None) -> None:
        if epoch is not None:
            # The former epoch has ended; an evaluation (None) happens within one.
            self._ahead = {key: a for key, a in self._ahead.items() if key is None}
        samples = order.tolist()
        paths = [self._paths[i] for i in samples]
        self._ahead[epoch] = _Ahead(
            deque(samples), decoded(paths, self._size, self._workers)
        )

    def batch(self, index: Tensor, epoch: int | None = None) -> Tensor:
        ahead = self._ahead.get(epoch)
        images = []
        for i in index.tolist():
            image = ahead.take(i) if ahead is not None else None
            if image is None:
                image = centre_square(self._paths[i], self._size)
            images.append(image)
        pixels = torch.stack(images)
        if self._device.type == "cuda":  # a copy from other memory blocks
            pixels = pixels.pin_memory()
        x = standardised(pixels.to(self._device, non_blocking=True), MEAN, STD)
        if epoch is not None:
            x = augmented(x, self._augment, self._seed, epoch, index)
        return x


class _Ahead:
    """The samples that will be requested next, and their images in the same order."""

    def __init__(
        self, order: deque[int], images: Iterator[Tensor | UnreadablePicture]
    ) -> None:
        self._order, self._images = order, images

    def take(self, sample: int) -> Tensor | None:
        """Return the image of `sample` if it is the next, else None."""
        if not self._order or self._order[0] != sample:
            return None
        self._order.popleft()
        image = next(self._images)
        if isinstance(image, UnreadablePicture):
            raise NormbenchError(f"an image could be decoded before, and now {image}")
        return image


def decoded(
    paths: Sequence[Path], size: int, workers: int
) -> Iterator[Tensor | UnreadablePicture]:
    """Yield each image in order, (3, size, size) uint8, or why it cannot be decoded.

    `workers` threads decode in advance, from the first request on: Pillow releases the
    interpreter lock while it decodes and scales. Without, this thread decodes.
    """

    def decode(path: Path) -> Tensor | UnreadablePicture:
        try:
            return centre_square(path, size)
        except UnreadablePicture as error:
            return error

    if not workers:
        yield from map(decode, paths)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="normbench-decode")
    pending: deque[Future[Tensor | UnreadablePicture]] = deque()
    try:
        for path in paths:
            pending.append(pool.submit(decode, path))
            if len(pending) > workers * AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
