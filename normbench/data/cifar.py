"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32x32 pixels each, from torchvision.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from normbench.data.base import Fraction
from normbench.data.reading.augmentation import Augmentations
from normbench.data.reading.downloads import TorchvisionImages


class Cifar(TorchvisionImages, name=None):
    """50,000 images for training and validation, 10,000 for the test."""

    def __init__(
        self,
        *,
        val_fraction: Fraction = 0.1,
        augment: Augmentations = ["crop", "flip"],  # noqa: B006 - never changed
    ) -> None:
        super().__init__(val_fraction=val_fraction, augment=augment)


class Cifar10(Cifar, name="cifar10"):
    """CIFAR with 10 classes."""

    source = "CIFAR10"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Cifar100(Cifar, name="cifar100"):
    """CIFAR with 100 classes."""

    source = "CIFAR100"
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
