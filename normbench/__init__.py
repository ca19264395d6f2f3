"""normbench: what a normalization layer does, measured."""

__version__ = "0.1.0"
