"""A trained style network, applied to pictures of any size."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from normbench import record, reparam
from normbench.data import files
from normbench.data.pictures import on_white, opened, pixels
from normbench.errors import NormbenchError, RequestError
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.factory import NormFactory
from normbench.schema import RunRecord
from normbench.tasks.style import SMALLEST, Generator


def styles(finished: RunRecord) -> int:
    """How many styles a run was trained in."""
    data = finished.config.data
    return len(data.get("styles") or data.get("style_paths") or [None])


def load(finished: RunRecord, folder: Path) -> nn.Module:
    """The network of a finished run of the style task, in evaluation, on the CPU.

    Neither its data nor the perceptual network are needed. Raises RequestError where
    the run is of another task, has no weights, or needs pictures of one size.
    """
    config, run = finished.config, finished.run_id
    if config.task["name"] != "style":
        raise RequestError(
            f"run {run} is of task={config.task['name']}; only networks of task=style "
            "draw pictures"
        )
    file = folder / record.WEIGHTS
    if finished.status != "ok" or not file.is_file():
        raise RequestError(
            f"run {run} ({finished.status}) has no {record.WEIGHTS}; `normbench train` "
            "with its overrides and keep_weights=true trains it again and keeps them"
        )
    if NORMS.get(config.norm["name"]).fixed_spatial:
        raise RequestError(
            f"norm={config.norm['name']} of run {run} has parameters for each position "
            "of a crop; it cannot draw pictures of another size"
        )
    options = {key: value for key, value in config.norm.items() if key != "name"}
    norms = NormFactory(config.norm["name"], options, norm_batch=config.norm_batch)
    model = Generator(norms, width=config.task["width"], blocks=config.task["blocks"])
    reparam.apply(model, config.reparam)
    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError, OSError) as error:
        told = str(error).splitlines()[0]
        raise RequestError(
            f"{file} is damaged, or of another version of this code: {told}; "
            "remove it, and `normbench train` with the run's overrides trains it again"
        ) from None
    return model.eval()


@torch.no_grad()
def drawn(model: nn.Module, picture: Tensor, style: int) -> Tensor:
    """(3, H, W) in [0, 1] -> the same, H and W of any size.

    What the network needs beyond the borders (even sides of SMALLEST or more) repeats
    the last row and column, and is cut off again.
    """
    height, width = picture.shape[1:]
    down, right = (max(SMALLEST, side + side % 2) - side for side in (height, width))
    x = F.pad(picture[None], (0, right, 0, down), mode="replicate")
    try:
        y: Tensor = model(x, torch.tensor([style]))
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower():
            raise
        raise NormbenchError(
            f"there is too little memory for a picture of {width}x{height} pixels; "
            "make it smaller"
        ) from None
    return y[0, :, :height, :width].clamp(0, 1)


def redrawn(
    finished: RunRecord,
    folder: Path,
    images: Sequence[Path],
    output_dir: Path,
    style: int,
) -> Iterator[Path]:
    """Draw `images` by the run in `folder`, and tell where each is once it is written.

    That is IMAGE-RUN_ID-STYLE.png in `output_dir`. All are read before the first is
    written. Raises RequestError where the run cannot draw them, NormbenchError where
    they cannot be written.
    """
    known = styles(finished)
    if style >= known:
        has = f"{known} styles, 0 to {known - 1}" if known > 1 else "one style, 0"
        raise RequestError(f"--style {style}: run {finished.run_id} has {has}")
    names = [f"{image.stem}-{finished.run_id[:8]}-{style}.png" for image in images]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise RequestError(
            f"several pictures would be written to {twice[0]}; rename one, or do them "
            "one by one"
        )
    model = load(finished, folder)
    for image in images:
        opened(files.file("IMAGE", str(image)))
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"--output-dir {output_dir} cannot be a folder: {error.strerror}"
        ) from None
    for image, name in zip(images, names, strict=True):
        try:
            stylize(model, image, output_dir / name, style)
        except OSError as error:
            raise NormbenchError(
                f"--output-dir {output_dir} cannot be written: {error.strerror}"
            ) from None
        yield output_dir / name


def stylize(model: nn.Module, source: Path, target: Path, style: int) -> None:
    """Draw the picture in `source` and write it to `target`, a PNG of the same size.

    Upright, in colour, and as transparent as it was; whole or not at all. Raises
    RequestError where `source` is no picture, OSError where `target` cannot be written.
    """
    from PIL import Image

    picture = opened(source)
    output = drawn(model, pixels(on_white(picture)).float() / 255, style)
    flat = output.mul(255).round().byte().permute(1, 2, 0).contiguous()
    result = Image.fromarray(flat.numpy())
    if picture.mode == "RGBA":
        result.putalpha(picture.getchannel("A"))
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        result.save(temporary, format="PNG")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
