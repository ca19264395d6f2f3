"""normbench measures what a normalization layer does to the training of a network."""

__version__ = "0.1.0"
