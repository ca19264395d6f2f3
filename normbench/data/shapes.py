"""Synthetic pictures of one shape on a texture, with independent content and style.

The content of a picture is its shape, with position, size and rotation. The style has
two kinds of factors. The colour factors are an offset and a gain of each channel,

    x = 1/2 + contrast * (brightness + tint(hue) + pattern)

where all channels have the same pattern (shape, texture, noise). Normalizing each
channel of a picture over its positions removes exactly these factors. The texture
factors, frequency and orientation, are part of the pattern, so normalization does not
remove them.
"""

import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from normbench.data.base import Data, Fraction, Images, random_split
from normbench.data.reading.augmentation import Augmentations, with_augmentation
from normbench.data.reading.embedded import content_hash
from normbench.data.reading.quality import Share, with_low_quality
from normbench.errors import RequestError

FORMAT = 1
"""Version of the pictures: increased whenever this code draws other pictures."""

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
    """The range of a factor's values."""

    low: float
    high: float
    spacing: Literal["linear", "log", "circular"] = "linear"

    def values(self, u: Tensor) -> Tensor:
        """Map `u` in [0, 1] to values in the range."""
        if self.spacing == "log":
            return self.low * (self.high / self.low) ** u
        return self.low + (self.high - self.low) * u

    def levels(self) -> Tensor:
        """Return one `u` per class, evenly spaced in the range or around the circle."""
        steps = CLASSES if self.spacing == "circular" else CLASSES - 1
        return torch.arange(CLASSES) / steps


# The mean of a picture is about 1/2 + contrast * brightness. At any contrast, this mean
# tells the level of the brightness: -0.12, -0.04, 0.04 or 0.12. The reason is that the
# ratio 0.12 / 0.04 = 3 is above the ratio of the largest and smallest contrast, which
# is 2.5.
STYLES = {
    "brightness": Range(-0.12, 0.12),
    "contrast": Range(0.4, 1.0, "log"),
    "hue": Range(0.0, 2 * math.pi, "circular"),
    "texture_frequency": Range(1 / 12, 1 / 4, "log"),  # cycles per pixel
    "texture_orientation": Range(0.0, math.pi, "circular"),
}
CONTENT = {
    "side": Range(0.36, 0.50),  # square root of the area, relative to the picture side
    "rotation": Range(0.0, 2 * math.pi, "circular"),
    "x": Range(0.0, 1.0),  # position; the shape is inside for all values
    "y": Range(0.0, 1.0),
    "phase": Range(0.0, 2 * math.pi, "circular"),  # phase of the texture
}

# Amplitudes at contrast 1. Together with the largest brightness, their sum is below
# 1/2. Therefore pixels stay in [0, 1] without clipping. Clipping would change a picture
# in another way than a gain and an offset.
SHAPE, TEXTURE, NOISE, TINT = 0.28, 0.05, 0.025, 0.06

AREA = 0.1865
"""Mean area of a shape. It is subtracted, so that the pattern has mean 0."""

MEAN, STD = 0.5, 0.095
"""Constants for standardising: about the mean and deviation of a large sample."""


class Shapes(Data, name="shapes"):
    """One of four shapes on a grating, with random position, size and rotation.

    `images` (samples, 3, size, size), standardised by constants. The label is the
    shape, or one of four levels of a style factor. All other factors are drawn
    uniformly from their ranges, independently of the label and of each other. All four
    shapes have the same distribution of areas. `contrast_luma` is a contrast that does
    not change the tint: a gain of the luminance, which is the mean of the three
    channels.

    With `style_shift`, the style factors of training and validation pictures are in the
    lower half of their ranges, and those of test pictures in the upper half.
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
        low_quality: Share = 0.0,
        augment: Augmentations = [],  # noqa: B006 - never changed
        fingerprint: str | None = None,
    ) -> None:
        if style_shift and label != "shape":
            raise RequestError(
                "data.style_shift=true needs data.label=shape, because it gives test "
                f"pictures another style, and data.label={label} is a style factor"
            )
        self.label = label
        self.style_shift = style_shift
        self.size = size
        self.samples = samples
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.low_quality = low_quality
        self.augment = augment
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        return content_hash(FORMAT)

    def load(self, seed: int) -> Images:
        """Return all images; raise RequestError if the fractions leave a part empty.

        With the same seed, two values of the option `label` give the same images,
        except for the two factors that these values name.
        """
        self.require_content(self.fingerprint)
        generator = torch.Generator().manual_seed(seed)
        splits = random_split(
            self.samples,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=generator,
        )
        # All labels have the same number of samples, up to one.
        labels = torch.randperm(self.samples, generator=generator) % CLASSES
        factors = self._draw(labels, splits["test"], generator)
        # After the subtraction of NOISE below, the noise is uniform in [-NOISE, NOISE].
        noise = torch.rand(
            (self.samples, self.size, self.size), generator=generator
        ).mul_(2 * NOISE)
        pixels = render(factors, noise - NOISE, luma=self.label == "contrast_luma")
        images, quality = with_low_quality(
            (pixels - MEAN) / STD, self.low_quality, seed
        )
        return Images(
            images=with_augmentation(images, self.augment, seed),
            quality=quality,
            labels=labels,
            classes=self._classes(),
            splits=splits,
        )

    def _draw(
        self, labels: Tensor, test: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Draw the values (N,) of all factors; "shape" is an index into SHAPES."""
        count = len(labels)
        # All factors are drawn for every label, so that all labels get the same
        # numbers.
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
        values = {name: ranges[name].values(u) for name, u in drawn.items()}
        return {"shape": shape, **values}

    def _factor(self) -> str:
        return self.label.removesuffix("_luma")

    def _classes(self) -> tuple[str, ...]:
        if self.label == "shape":
            return SHAPES
        factor = STYLES[self._factor()]
        return tuple(
            f"{value:.3g}" for value in factor.values(factor.levels()).tolist()
        )


def render(factors: dict[str, Tensor], noise: Tensor, *, luma: bool) -> Tensor:
    """Return pixels (N, 3, S, S) in [0, 1] for `factors` (N,) and `noise` (N, S, S).

    The contrast also scales the noise. If `luma`, the contrast scales only the
    luminance.
    """
    f = {name: value[:, None, None] for name, value in factors.items()}
    size = noise.shape[1]
    centres = torch.arange(size) + 0.5
    x, y = centres[None, None, :], centres[None, :, None]
    along = x * f["texture_orientation"].cos() + y * f["texture_orientation"].sin()
    texture = (2 * math.pi * f["texture_frequency"] * along + f["phase"]).cos()
    pattern = SHAPE * (coverage(f, x, y, size) - AREA) + TEXTURE * texture + noise
    grey = (f["brightness"] + pattern)[:, None]
    # The tints of the channels are a third of a turn apart, so that their mean is 0.
    turns = torch.arange(3)[:, None, None] / 3
    tint = TINT * (f["hue"][:, None] - 2 * math.pi * turns).cos()
    gain = f["contrast"][:, None]
    return MEAN + (gain * grey + tint if luma else gain * (grey + tint))


def coverage(f: dict[str, Tensor], x: Tensor, y: Tensor, size: int) -> Tensor:
    """Return which share of each pixel the shape covers: (N, size, size) in [0, 1].

    The values are approximate. `f` are the factors (N, 1, 1); `x` and `y` are the
    coordinates of the pixel centres.
    """
    side = f["side"] * size
    # No shape reaches farther from its centre than the triangle: 0.878 sides.
    margin = 0.88 * side
    # Move the origin to the centre of the shape, then rotate the axes.
    x = x - margin - (size - 2 * margin) * f["x"]
    y = y - margin - (size - 2 * margin) * f["y"]
    cos, sin = f["rotation"].cos(), f["rotation"].sin()
    x, y = cos * x + sin * y, cos * y - sin * x
    # Signed distances to the edges, in pixels, of shapes with the area side ** 2.
    ax, ay = x.abs(), y.abs()
    third = side / math.sqrt(5)  # the cross consists of five squares with this side
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
    # Select the distance for the shape of each picture.
    stacked = torch.stack([distances[name] for name in SHAPES])
    index = f["shape"].expand(1, -1, size, size)
    # A pixel whose centre is on the edge is half covered.
    return (0.5 - stacked.gather(0, index)[0]).clamp(0, 1)
