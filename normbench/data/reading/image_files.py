"""Images that are decoded from their files whenever a batch needs them."""

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
"""Mean and standard deviation of ImageNet's training images, in [0, 1]."""

PREFETCH = 32
"""Images that each worker decodes in advance."""


class ImageFiles(ImageSource):
    """Images in files, scaled and cut to squares, standardised by MEAN and STD.

    `workers` threads decode in advance, in the order that `expect` announces. An image
    that is requested out of this order is decoded immediately.
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
        self._queues: dict[int | None, _Prefetched] = {}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._paths), 3, self._size, self._size

    def to(self, device: torch.device) -> Self:
        images = copy.copy(self)
        images._device, images._queues = device, {}
        return images

    def expect(self, order: Tensor, epoch: int | None = None) -> None:
        if epoch is not None:
            # The queue of the previous epoch is no longer needed. The queue of an
            # evaluation has the key None and may still be needed.
            self._queues = {k: queue for k, queue in self._queues.items() if k is None}
        samples = order.tolist()
        paths = [self._paths[i] for i in samples]
        images = decoded(paths, self._size, self._workers)
        self._queues[epoch] = _Prefetched(deque(samples), images)

    def batch(self, index: Tensor, epoch: int | None = None) -> Tensor:
        queue = self._queues.get(epoch)
        images = []
        for i in index.tolist():
            image = queue.take(i) if queue is not None else None
            if image is None:
                image = centre_square(self._paths[i], self._size)
            images.append(image)
        pixels = torch.stack(images)
        if self._device.type == "cuda":  # only pinned memory is copied asynchronously
            pixels = pixels.pin_memory()
        x = standardised(pixels.to(self._device, non_blocking=True), MEAN, STD)
        if epoch is not None:
            x = augmented(x, self._augment, self._seed, epoch, index)
        return x


class _Prefetched:
    """A queue of the samples that will be requested next, with their images."""

    def __init__(
        self, order: deque[int], images: Iterator[Tensor | UnreadablePicture]
    ) -> None:
        self._order, self._images = order, images

    def take(self, sample: int) -> Tensor | None:
        """Return and remove the image of `sample`.

        Returns None if `sample` is not the next sample of the queue.
        """
        if not self._order or self._order[0] != sample:
            return None
        self._order.popleft()
        image = next(self._images)
        if isinstance(image, UnreadablePicture):
            raise NormbenchError(f"an image has become unreadable: {image}")
        return image


def decoded(
    paths: Sequence[Path], size: int, workers: int
) -> Iterator[Tensor | UnreadablePicture]:
    """Yield the images of `paths` in order, each a uint8 tensor (3, size, size).

    In place of an unreadable image, the exception with the reason is yielded. `workers`
    threads start at the first request and decode in advance. Threads are enough,
    because Pillow releases the interpreter lock. With 0 workers, the caller decodes.
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
            if len(pending) > workers * PREFETCH:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
