"""Check how the three layers that are called LayerNorm differ, and that of text."""

import torch
from torch import nn

from normbench.claims.layer_norm_axes import axes
from normbench.claims.theorems.base import Finding, difference, finding, theorem
from normbench.errors import Incompatible
from normbench.norms.base import make
from normbench.norms.measure.footprint import footprints
from normbench.norms.measure.subject import Mode

SAMPLES, CHANNELS, POSITIONS = SHAPE = (2, 4, 5)


@theorem("layers-that-agree")
def layers_that_agree() -> Finding:
    """layer_sample and layer_shape are one function before their affine maps.

    The layers are compared on images and on sequences, with their initial affine maps,
    which change nothing. The control is layer_position, which is another function.
    """
    generator = torch.Generator().manual_seed(0)
    apart: dict[str, dict[str, float]] = {"layer_shape": {}, "layer_position": {}}
    for kind, shape in {"images": (4, 8, 6, 6), "sequences": (4, 8, 9)}.items():
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1
        reference = make("layer_sample", 8, affine=False)(x)
        for name, by_kind in apart.items():
            by_kind[kind] = difference(make(name, 8).double()(x).detach(), reference)
    return finding(
        apart["layer_shape"],
        apart["layer_position"],
        "layer_shape is {deviation:.1g} from layer_sample, layer_position "
        "{control:.2g} at least",
    )


@theorem("layer-footprints")
def layer_footprints() -> Finding:
    """layer_sample and layer_shape read a whole sample, layer_position one position.

    The footprint, measured by value and by gradient, is compared with this statement.
    The deviation is the number of entries that differ.
    """
    # Entry (n, c, p, m, d, q) says whether output (n, c, p) reads input (m, d, q).
    same_sample = torch.eye(SAMPLES, dtype=torch.bool)[:, None, None, :, None, None]
    same_position = torch.eye(POSITIONS, dtype=torch.bool)[None, None, :, None, None]
    whole_sample = same_sample.expand(*SHAPE, *SHAPE)
    one_position = (same_sample & same_position).expand(*SHAPE, *SHAPE)
    expected = {
        "layer_sample": whole_sample,
        "layer_shape": whole_sample,
        "layer_position": one_position,
    }
    measured = {}
    for name in expected:
        (footprint, *_) = footprints(make(name, CHANNELS), SHAPE)
        assert footprint.mode is Mode.train
        measured[name] = {
            "value": torch.from_numpy(footprint.value.entries),
            "gradient": torch.from_numpy(footprint.gradient.entries),
        }
    deviations = {
        (name, kind): float((entries != expected[name]).sum())
        for name, kinds in measured.items()
        for kind, entries in kinds.items()
    }
    controls = {
        kind: float((entries != whole_sample).sum())
        for kind, entries in measured["layer_position"].items()
    }
    counts = {  # the largest number of inputs that one output reads
        name: int(kinds["value"].flatten(3).sum(3).max())
        for name, kinds in measured.items()
    }
    return finding(
        deviations,
        controls,
        f"with {CHANNELS} channels and {POSITIONS} positions one output reads "
        + ", ".join(f"{count} entries in {name}" for name, count in counts.items()),
    )


@theorem("layer-shape-fixes-size")
def layer_shape_fixes_size() -> Finding:
    """layer_shape takes inputs of one spatial size, that of its affine map.

    After a first input, the layer gets inputs of four other sizes. The deviation is the
    number of sizes that it accepts.
    """
    sizes = ((5, 6), (6, 5), (7, 7), (3, 12))

    def accepted(name: str) -> float:
        norm = make(name, 4)
        norm(torch.randn(2, 4, 6, 6))
        count = 0
        for size in sizes:
            try:
                norm(torch.randn(2, 4, *size))
            except Incompatible:
                continue
            count += 1
        return float(count)

    return finding(
        {"layer_shape": accepted("layer_shape")},
        {name: accepted(name) for name in ("layer_sample", "layer_position")},
        "of {sizes} other sizes layer_shape accepts {deviation:.0f}, the other two "
        "layers {control:.0f}",
        sizes=len(sizes),
    )


@theorem("transformer-norms")
def transformer_norms() -> Finding:
    """Every layer norm of torch.nn.Transformer normalises the embedding of one token.

    The encoder and the decoder get sequences (N, L, C), and the axes of the statistics
    of each layer norm are measured. The deviation is the number of layer norms with
    other axes than that of the embedding. The control is one over L and C.
    """
    shapes: dict[nn.Module, torch.Size] = {}

    def note(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        shapes[layer] = inputs[0].shape

    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.LayerNorm)]
    for layer in layers:
        layer.register_forward_pre_hook(note)
    model(torch.randn(2, 5, 8), torch.randn(2, 6, 8))
    others = sum(axes(layer, shapes[layer]) != {2} for layer in layers)
    whole = nn.LayerNorm([5, 8])
    return finding(
        {"torch.nn.Transformer": float(others)},
        {"over L and C": float(axes(whole, (2, 5, 8)) != {2})},
        "of {layers} layer norms {deviation:.0f} have other axes than the embedding; "
        "of one over L and C, {control:.0f} has",
        layers=len(layers),
    )
