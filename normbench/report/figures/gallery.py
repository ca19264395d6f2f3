"""The outputs of style networks for the same pictures, side by side."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from normbench.errors import RequestError
from normbench.report.figures.drawing import INK, PAGE, figure, style
from normbench.report.figures.series import MOST_ROWS, check_count


def gallery(pictures: Mapping[str, Image.Image]) -> Figure:
    """The test pictures and the style, and below the output of each network.

    `pictures[label]` is the picture of a style run: inputs above, outputs below. Raises
    RequestError if the runs have different inputs.
    """
    read = {label: _halves(picture) for label, picture in pictures.items()}
    above = {half[0].tobytes() for half in read.values()}
    if len(above) > 1:
        raise RequestError(
            "these runs have different pictures; choose those of one seed and style, "
            "such as --where seed=0"
        )
    (content, _), *_ = read.values()
    strips = {"content, style": content, **{k: below for k, (_, below) in read.items()}}
    check_count("rows", len(strips), MOST_ROWS)
    rows_, columns, _ = content.shape
    width = PAGE - 1.1
    height = len(strips) * (width * rows_ / columns + 0.06) + 0.1
    with style():
        title = f"What {', '.join(read)} make of the same pictures"
        made = figure(
            PAGE, height, title, "Rows: the inputs, then one for each network."
        )
        grid = made.subplots(len(strips), 1, squeeze=False)
        for axes, (label, strip) in zip(grid[:, 0], strips.items(), strict=True):
            axes.imshow(_see_through(strip), interpolation="nearest", aspect="equal")
            axes.set_axis_off()
            axes.text(
                -0.01,
                0.5,
                label,
                transform=axes.transAxes,
                ha="right",
                va="center",
                color=INK,
            )
    return made


def _halves(picture: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pixels = np.asarray(picture.convert("RGB"))
    return pixels[: len(pixels) // 2], pixels[len(pixels) // 2 :]


def _see_through(strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With blank squares, which are white, transparent."""
    side = len(strip)
    alpha = np.full((*strip.shape[:2], 1), 255, dtype=np.uint8)
    for start in range(0, strip.shape[1], side):
        if (strip[:, start : start + side] == 255).all():
            alpha[:, start : start + side] = 0
    return np.concatenate([strip, alpha], axis=2)
