"""MNIST and Fashion-MNIST: 70,000 grey images of 28x28 pixels each, from torchvision.

LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition"; Xiao et
al. 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms".
"""

from normbench.data.reading.downloads import TorchvisionImages


class Mnist(TorchvisionImages, name="mnist"):
    """60,000 digits for training and validation, 10,000 for the test."""

    source = "MNIST"
    mean, std = (0.1307,), (0.3081,)


class FashionMnist(TorchvisionImages, name="fashion_mnist"):
    """60,000 articles of clothing for training and validation, 10,000 for the test."""

    source = "FashionMNIST"
    mean, std = (0.2860,), (0.3530,)
