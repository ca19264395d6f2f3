"""A figure of the outputs of several style networks for the same pictures."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from normbench.errors import RequestError
from normbench.report.figures.drawing import PAGE_WIDTH, TEXT_COLOUR, figure, style
from normbench.report.figures.series import MAX_ROWS, check_count


def gallery(pictures: Mapping[str, Image.Image]) -> Figure:
    """Draw a row with the inputs, and below it a row with the outputs of each network.

    `pictures[label]` is the picture of a style run: the upper half has its inputs, the
    lower half its outputs. Raises RequestError if the runs have different inputs.
    """
    halves = {label: _halves(picture) for label, picture in pictures.items()}
    inputs = [upper for upper, _ in halves.values()]
    if len({pixels.tobytes() for pixels in inputs}) > 1:
        raise RequestError(
            "these runs have different input pictures; choose runs with one seed and "
            "style, such as --where seed=0"
        )
    strips = {"content, style": inputs[0]}
    strips |= {label: lower for label, (_, lower) in halves.items()}
    check_count("rows", len(strips), MAX_ROWS)
    pixel_rows, pixel_columns, _ = inputs[0].shape
    # Inches: 1.1 for the labels, 0.06 between rows, 0.1 for the margins.
    width = PAGE_WIDTH - 1.1
    height = len(strips) * (width * pixel_rows / pixel_columns + 0.06) + 0.1
    title = f"Outputs of {', '.join(pictures)} for the same pictures"
    description = (
        "The first row has the inputs, each other row the outputs of a network."
    )
    with style():
        drawn = figure(PAGE_WIDTH, height, title, description)
        grid = drawn.subplots(len(strips), 1, squeeze=False)
        for axes, (label, strip) in zip(grid[:, 0], strips.items(), strict=True):
            axes.imshow(
                _transparent_blanks(strip), interpolation="nearest", aspect="equal"
            )
            axes.set_axis_off()
            axes.text(
                -0.01,
                0.5,
                label,
                transform=axes.transAxes,
                ha="right",
                va="center",
                color=TEXT_COLOUR,
            )
    return drawn


def _halves(picture: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the upper and the lower half of a picture, each (H, W, 3)."""
    pixels = np.asarray(picture.convert("RGB"))
    return pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]


def _transparent_blanks(strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make the white squares of a strip transparent: (H, W, 3) to (H, W, 4)."""
    side = len(strip)  # a strip is a row of squares
    alpha = np.full((*strip.shape[:2], 1), 255, dtype=np.uint8)
    for start in range(0, strip.shape[1], side):
        if (strip[:, start : start + side] == 255).all():
            alpha[:, start : start + side] = 0
    return np.concatenate([strip, alpha], axis=2)
