"""Apply a trained style network to pictures of any size."""

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
from normbench.training.network import noise_after_norms


def styles(finished: RunRecord) -> int:
    """Return the number of styles in which a run was trained."""
    options = finished.config.data.options
    names = options.get("styles") or options.get("style_paths")
    # Without a list of styles, the data set has one style.
    return len(names) if isinstance(names, list) and names else 1


def load(finished: RunRecord, folder: Path) -> nn.Module:
    """Load the network of a finished style run, in evaluation mode, on the CPU.

    `folder` is the folder of the run. Neither the data nor the perceptual network are
    needed. Raises RequestError if the run has another task or no weights, or if its
    network works only with pictures of one size.
    """
    config, run = finished.config, finished.run_id
    if config.task.name != "style":
        raise RequestError(
            f"run {run} has task={config.task.name}; only runs with task=style can "
            "draw pictures"
        )
    file = folder / store.WEIGHTS
    if finished.status != "ok" or not file.is_file() or file.is_symlink():
        raise RequestError(
            f"run {run} ({finished.status}) has no {store.WEIGHTS}; to train it again "
            "and keep the weights, run `normbench train` with the overrides of the run "
            "and keep_weights=true"
        )
    if NORMS.get(config.norm.name).fixed_spatial:
        raise RequestError(
            f"norm={config.norm.name} of run {run} has parameters for each position "
            "of a training picture, so it cannot draw pictures of another size"
        )
    try:
        state = load_file(file)
        model = _network(config, state)
        model.load_state_dict(state)
    except NormbenchError:
        raise
    except Exception as error:  # files of other people and user classes can raise any
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(
            f"{file} is damaged or was written by another version of this code: "
            f"{reason}; to train the run again, remove the file and run `normbench "
            "train` with the overrides of the run"
        ) from None
    return model.eval()


def _network(config: RunConfig, state: Mapping[str, Tensor]) -> nn.Module:
    """Build the network of `config` after a check that `state` can be its weights.

    A record from another person may have a wrong width or number of blocks. The check
    limits the memory that the network of such a record needs.
    """
    width: Any = config.task.options.get("width")
    blocks: Any = config.task.options.get("blocks")
    # Some weight has `width` channels, and every block has weights.
    max_width = max((size for x in state.values() for size in x.shape), default=0)
    max_blocks = len(state)
    for key, value, maximum in (
        ("width", width, max_width),
        ("blocks", blocks, max_blocks),
    ):
        if type(value) is not int or not 1 <= value <= maximum:
            raise RequestError(
                f"task.{key}={value!r} in the record does not fit the weights"
            )
    options = NORMS.options(config.norm.name, config.norm.options)
    norms = NormFactory(
        config.norm.name,
        options,
        norm_batch=config.norm_batch,
        noise=noise_after_norms(config),
    )
    model = Generator(norms, width=width, blocks=blocks)
    reparam.apply(model, config.reparam)
    return model


@torch.no_grad()
def stylize(model: nn.Module, picture: Tensor, style: int) -> Tensor:
    """Draw `picture` (3, H, W), in [0, 1], in a style; H and W can be any size.

    The network needs even sides of at least MIN_SIDE pixels. If the picture has other
    sides, its last row and column are repeated, and the output is cut to the size of
    the picture. Raises NormbenchError if there is too little memory.
    """
    height, width = picture.shape[1:]
    # `side + side % 2` is the next even number.
    down, right = (max(MIN_SIDE, side + side % 2) - side for side in (height, width))
    x = F.pad(picture[None], (0, right, 0, down), mode="replicate")
    try:
        y: Tensor = model(x, torch.tensor([style]))
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower():
            raise
        raise NormbenchError(
            f"there is too little memory for a picture of {width}x{height} pixels; "
            "reduce its size"
        ) from None
    return y[0, :, :height, :width].clamp(0, 1)


def stylize_files(
    finished: RunRecord,
    folder: Path,
    images: Sequence[Path],
    output_dir: Path,
    style: int,
) -> Iterator[Path]:
    """Draw `images` with the run in `folder`; yield each file after it is written.

    The files are `output_dir`/IMAGE-RUN_ID-STYLE.png. All images are read before the
    first file is written. Raises RequestError if the run cannot draw the images, and
    NormbenchError if a file cannot be written.
    """
    count = styles(finished)
    if style >= count:
        choices = f"{count} styles, 0 to {count - 1}" if count > 1 else "one style, 0"
        raise RequestError(f"--style {style}: run {finished.run_id} has {choices}")
    names = [f"{image.stem}-{finished.run_id[:8]}-{style}.png" for image in images]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise RequestError(
            f"several pictures would be written to {repeated[0]}; rename one, or use "
            "another --output-dir for it"
        )
    model = load(finished, folder)
    for image in images:  # raise RequestError before a file is written
        read_picture(files.file("IMAGE", str(image)))
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"--output-dir {output_dir} cannot be created: {error.strerror}"
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
    """Draw the picture `source` in a style; return a PNG of the same size.

    The transparency of the picture does not change. Raises RequestError if `source` is
    not a picture.
    """
    from PIL import Image

    picture = read_picture(source)
    output = stylize(model, pixels(on_white(picture)).float() / 255, style)
    flat = output.mul(255).round().byte().permute(1, 2, 0).contiguous()
    result = Image.fromarray(flat.numpy())
    if picture.mode == "RGBA":
        result.putalpha(picture.getchannel("A"))
    buffer = io.BytesIO()
    result.save(buffer, format="PNG")
    return buffer.getvalue()
