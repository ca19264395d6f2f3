"""normbench: what a normalization layer does, measured."""
