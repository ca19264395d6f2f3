"""Pictures of one shape on a texture: content and style as factors, drawn by the seed.

Style is what remains of a picture when its content, the shape, is taken away. Its
factors come in two kinds. Those of colour are an offset and a gain of each channel,

    x = 1/2 + contrast * (brightness + tint(hue) + pattern)

with the same pattern (shape, texture, noise) in all channels: normalizing each channel
of a picture over its positions takes exactly them away, and one gain of all channels is
also lost where a whole picture is normalised about 1/2. Those of texture, frequency and
orientation, are in the pattern itself.
"""

import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from normbench.data.base import Data, Fraction, Images, random_split
from normbench.data.reading.augmentation import Augmentations, augmenting
from normbench.data.reading.embedded import content_hash
from normbench.errors import RequestError

FORMAT = 1
"""Of what is drawn: raised when this code draws other pictures."""

SHAPES = ("disc", "square", "triangle", "cross")
CLASSES = len(SHAPES)

Label = Literal[
    "shape",
    "brightness",
    "contrast",
    "contrast_luma",
    "hue",
    "texture_frequency",
    "texture_orientation",
]


class Range(NamedTuple):
    """The values of a factor: `at` maps [0, 1] onto them."""

    low: float
    high: float
    spacing: Literal["linear", "log", "circular"] = "linear"

    def at(self, u: Tensor) -> Tensor:
        if self.spacing == "log":
            return self.low * (self.high / self.low) ** u
        return self.low + (self.high - self.low) * u

    def levels(self) -> Tensor:
        """One u a class: from end to end, or around a circle, evenly."""
        steps = CLASSES if self.spacing == "circular" else CLASSES - 1
        return torch.arange(CLASSES) / steps


# A picture's brightness times its contrast is on one side of 1/2, and two levels of
# brightness do not overlap at any contrast, as their ratio (3) is above its range.
STYLES = {
    "brightness": Range(-0.12, 0.12),
    "contrast": Range(0.4, 1.0, "log"),
    "hue": Range(0.0, 2 * math.pi, "circular"),
    "texture_frequency": Range(1 / 12, 1 / 4, "log"),  # cycles per pixel
    "texture_orientation": Range(0.0, math.pi, "circular"),
}
CONTENT = {
    "side": Range(0.36, 0.50),  # root of the area, in sides of the picture
    "rotation": Range(0.0, 2 * math.pi, "circular"),
    "x": Range(0.0, 1.0),  # of the part where the whole shape is inside
    "y": Range(0.0, 1.0),
    "phase": Range(0.0, 2 * math.pi, "circular"),  # of the texture
}

# Amplitudes at contrast 1. With the largest brightness they add up to less than 1/2:
# pixels stay in [0, 1] without clipping, which would be no gain and no offset.
SHAPE, TEXTURE, NOISE, TINT = 0.28, 0.05, 0.025, 0.06

AREA = 0.1865
"""Mean area of a shape: its pattern is without a mean, like texture, noise and tint."""

MEAN, STD = 0.5, 0.095
"""The constants that standardise: about those of a large sample."""


class Shapes(Data, name="shapes"):
    """One of four shapes, of random place, size and rotation, on a grating.

    `images` (samples, 3, size, size), standardised by constants. The label is the shape
    or, in four levels, a factor of style; all other factors are drawn independently of
    it and of each other, evenly from their ranges (of a shape, all have the same area).
    `contrast_luma` is contrast that leaves the tint as it is: a gain of the luminance,
    the mean of the three channels, alone.

    `style_shift`: training and validation pictures have the lower half of the range of
    every factor of style, test pictures the upper one.
    """

    kind = Images
    known_content = "2ac35d023f0e027a0062bcc6fe66c86a"

    def __init__(
        self,
        *,
        label: Label = "shape",
        style_shift: bool = False,
        size: Annotated[int, Field(ge=16)] = 24,
        samples: PositiveInt = 5000,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.3,
        augment: Augmentations = [],  # noqa: B006 - never changed
        fingerprint: str | None = None,
    ) -> None:
        if style_shift and label != "shape":
            raise RequestError(
                f"data.style_shift=true shifts the style between training and test, "
                f"and data.label={label} is a factor of style; it needs "
                "data.label=shape"
            )
        self.label = label
        self.style_shift = style_shift
        self.size = size
        self.samples = samples
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.augment = augment
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        return content_hash(FORMAT)

    def load(self, seed: int) -> Images:
        """All images; RequestError if the fractions leave a part empty.

        With one seed, pictures of two labels differ in the labelled factors only.
        """
        self.require_content(self.fingerprint)
        generator = torch.Generator().manual_seed(seed)
        splits = random_split(
            self.samples,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=generator,
        )
        labels = torch.randperm(self.samples, generator=generator) % CLASSES
        factors = self._draw(labels, splits["test"], generator)
        noise = torch.rand(
            (self.samples, self.size, self.size), generator=generator
        ).mul_(2 * NOISE)
        pixels = render(factors, noise - NOISE, luma=self.label == "contrast_luma")
        return Images(
            images=augmenting((pixels - MEAN) / STD, self.augment, seed),
            labels=labels,
            classes=self._classes(),
            splits=splits,
        )

    def _draw(
        self, labels: Tensor, test: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Values (N,) of all factors; "shape" is an index of SHAPES."""
        count = len(labels)
        shape = torch.randint(CLASSES, (count,), generator=generator)
        ranges = STYLES | CONTENT
        drawn = {name: torch.rand(count, generator=generator) for name in ranges}
        if self.label == "shape":
            shape = labels
        else:
            drawn[self._factor()] = ranges[self._factor()].levels()[labels]
        if self.style_shift:
            upper = torch.zeros(count)
            upper[test] = 0.5
            drawn |= {name: drawn[name] / 2 + upper for name in STYLES}
        values = {name: ranges[name].at(u) for name, u in drawn.items()}
        return {"shape": shape, **values}

    def _factor(self) -> str:
        return self.label.removesuffix("_luma")

    def _classes(self) -> tuple[str, ...]:
        if self.label == "shape":
            return SHAPES
        factor = STYLES[self._factor()]
        return tuple(f"{value:.3g}" for value in factor.at(factor.levels()).tolist())


def render(factors: dict[str, Tensor], noise: Tensor, *, luma: bool) -> Tensor:
    """Pixels (N, 3, S, S) in [0, 1] of `factors` (N,) with `noise` (N, S, S).

    `noise` is added before the gain, which is of the luminance alone if `luma`.
    """
    f = {name: value[:, None, None] for name, value in factors.items()}
    size = noise.shape[1]
    centres = torch.arange(size) + 0.5
    x, y = centres[None, None, :], centres[None, :, None]
    along = x * f["texture_orientation"].cos() + y * f["texture_orientation"].sin()
    texture = (2 * math.pi * f["texture_frequency"] * along + f["phase"]).cos()
    pattern = SHAPE * (coverage(f, x, y, size) - AREA) + TEXTURE * texture + noise
    grey = (f["brightness"] + pattern)[:, None]
    # Channels are a third of a turn apart, so that a tint has no luminance.
    turns = torch.arange(3)[:, None, None] / 3
    tint = TINT * (f["hue"][:, None] - 2 * math.pi * turns).cos()
    gain = f["contrast"][:, None]
    return MEAN + (gain * grey + tint if luma else gain * (grey + tint))


def coverage(f: dict[str, Tensor], x: Tensor, y: Tensor, size: int) -> Tensor:
    """How much of each pixel its shape covers, about: (N, size, size) in [0, 1].

    `f` are factors (N, 1, 1); `x`, `y` the coordinates of the pixels' centres.
    """
    side = f["side"] * size
    # The corners of the triangle are the farthest from the centre: .878 sides.
    margin = 0.88 * side
    x = x - margin - (size - 2 * margin) * f["x"]
    y = y - margin - (size - 2 * margin) * f["y"]
    cos, sin = f["rotation"].cos(), f["rotation"].sin()
    x, y = cos * x + sin * y, cos * y - sin * x
    # Signed distances to the edge, in pixels, of shapes of area side ** 2.
    ax, ay = x.abs(), y.abs()
    third = side / math.sqrt(5)
    slant = math.sqrt(0.75) * ax + y / 2
    distances = {
        "disc": torch.hypot(x, y) - side / math.sqrt(math.pi),
        "square": torch.maximum(ax, ay) - side / 2,
        "triangle": torch.maximum(slant, -y) - side / math.sqrt(math.sqrt(27)),
        "cross": torch.minimum(
            torch.maximum(ax - third * 1.5, ay - third / 2),
            torch.maximum(ay - third * 1.5, ax - third / 2),
        ),
    }
    stacked = torch.stack([distances[name] for name in SHAPES])
    index = f["shape"].expand(1, -1, size, size)
    return (0.5 - stacked.gather(0, index)[0]).clamp(0, 1)
