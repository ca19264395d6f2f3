"""A trained style network, applied to pictures of any size."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from normbench.config.schema import RunConfig, RunRecord
from normbench.data.reading import files
from normbench.data.reading.pictures import on_white, pixels, read_picture
from normbench.errors import NormbenchError, RequestError
from normbench.norms import reparam
from normbench.norms.base import REGISTRY as NORMS
from normbench.norms.factory import NormFactory
from normbench.records import store
from normbench.system.atomic import write_atomically
from normbench.tasks.style import MIN_SIDE, Generator


def styles(finished: RunRecord) -> int:
    """The number of styles in which a run was trained."""
    options = finished.config.data.options
    names = options.get("styles") or options.get("style_paths")
    return len(names) if isinstance(names, list) and names else 1


def load(finished: RunRecord, folder: Path) -> nn.Module:
    """The network of a finished run of the style task, in evaluation mode, on the CPU.

    Needs neither the data nor the perceptual network. Raises RequestError if the run
    is of another task, has no weights, or needs pictures of one size.
    """
    config, run = finished.config, finished.run_id
    if config.task.name != "style":
        raise RequestError(
            f"run {run} is of task={config.task.name}; only networks of task=style "
            "draw pictures"
        )
    file = folder / store.WEIGHTS
    if finished.status != "ok" or not file.is_file() or file.is_symlink():
        raise RequestError(
            f"run {run} ({finished.status}) has no {store.WEIGHTS}; `normbench train` "
            "with its overrides and keep_weights=true trains it again and keeps them"
        )
    if NORMS.get(config.norm.name).fixed_spatial:
        raise RequestError(
            f"norm={config.norm.name} of run {run} has parameters for each position "
            "of a crop; it cannot draw pictures of another size"
        )
    try:
        state = load_file(file)
        model = _network(config, state)
        model.load_state_dict(state)
    except NormbenchError:
        raise
    except Exception as error:  # from another's record, or classes of the user's own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(
            f"{file} is damaged, or of another version of this code: {reason}; "
            "remove it, and `normbench train` with the run's overrides trains it again"
        ) from None
    return model.eval()


def _network(config: RunConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """A network of `config`, not larger than the one that `state` comes from."""
    width: Any = config.task.options.get("width")
    blocks: Any = config.task.options.get("blocks")
    widest = max((side for x in state.values() for side in x.shape), default=0)
    for key, value, most in (("width", width, widest), ("blocks", blocks, len(state))):
        if type(value) is not int or not 1 <= value <= most:
            raise RequestError(
                f"task.{key}={value!r} in the record is not that of the weights"
            )
    options = NORMS.options(config.norm.name, config.norm.options)
    norms = NormFactory(config.norm.name, options, norm_batch=config.norm_batch)
    model = Generator(norms, width=width, blocks=blocks)
    reparam.apply(model, config.reparam)
    return model


@torch.no_grad()
def drawn(model: nn.Module, picture: Tensor, style: int) -> Tensor:
    """(3, H, W) in [0, 1] -> the same, for any H and W.

    The network needs even sides of at least MIN_SIDE: the last row and column are
    repeated up to that size, and the result is cut to the size of the input.
    """
    height, width = picture.shape[1:]
    down, right = (max(MIN_SIDE, side + side % 2) - side for side in (height, width))
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
    """Draw `images` with the run in `folder`; yields every file once it is written.

    The files are IMAGE-RUN_ID-STYLE.png in `output_dir`. All images are read before the
    first file is written. Raises RequestError if the run cannot draw them, and
    NormbenchError if a file cannot be written.
    """
    count = styles(finished)
    if style >= count:
        has = f"{count} styles, 0 to {count - 1}" if count > 1 else "one style, 0"
        raise RequestError(f"--style {style}: run {finished.run_id} has {has}")
    names = [f"{image.stem}-{finished.run_id[:8]}-{style}.png" for image in images]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise RequestError(
            f"several pictures would be written to {repeated[0]}; rename one, or do "
            "them one by one"
        )
    model = load(finished, folder)
    for image in images:
        read_picture(files.file("IMAGE", str(image)))
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"--output-dir {output_dir} cannot be a folder: {error.strerror}"
        ) from None
    for image, name in zip(images, names, strict=True):
        png = _png(model, image, style)
        try:
            write_atomically(output_dir / name, png)
        except OSError as error:
            raise NormbenchError(
                f"--output-dir {output_dir} cannot be written: {error.strerror}"
            ) from None
        yield output_dir / name


def _png(model: nn.Module, source: Path, style: int) -> bytes:
    """The picture in `source`, redrawn: a PNG of the same size and transparency.

    Raises RequestError if `source` is not a picture.
    """
    from PIL import Image

    picture = read_picture(source)
    output = drawn(model, pixels(on_white(picture)).float() / 255, style)
    flat = output.mul(255).round().byte().permute(1, 2, 0).contiguous()
    result = Image.fromarray(flat.numpy())
    if picture.mode == "RGBA":
        result.putalpha(picture.getchannel("A"))
    buffer = io.BytesIO()
    result.save(buffer, format="PNG")
    return buffer.getvalue()
