"""The figures of a verdict, and the looks of norms."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from verdicts_made import CLAIMS, committed, rich_verdict, some_verdicts

from normbench.config.choices import choices
from normbench.errors import RequestError
from normbench.records.store import read_compact
from normbench.report.figures import drawing, palette
from normbench.report.figures.directions import ends_of
from normbench.report.figures.layout import Texts, balanced, framed, wrapped
from normbench.report.figures.names import arm_names, level_names, norm_of
from normbench.report.figures.seeds import SeedRuns
from normbench.report.figures.series import Point, numeric, styled_series
from normbench.report.figures.units import quantity
from normbench.report.figures.verdict import verdict_figures
from normbench.report.published import published
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import Verdict

Floats = NDArray[np.float64]

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("$x^2$")</script> & \x00\x0b "]]> id="y" url(#z) \N{SNOWMAN}'

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
PROTANOPIA = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)


def linear(colour: str) -> Floats:
    """Convert a hex colour to linear RGB (IEC 61966-2-1)."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    """Convert linear RGB to CIELAB with white point D65."""
    to_xyz = np.array(
        (
            (0.4124564, 0.3575761, 0.1804375),
            (0.2126729, 0.7151522, 0.0721750),
            (0.0193339, 0.1191920, 0.9503041),
        )
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array((116 * y - 16, 500 * (x - y), 200 * (y - z)))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2."""
    weights = (0.2126, 0.7152, 0.0722)
    dark, light = sorted(float(linear(c) @ weights) for c in (one, other))
    return (light + 0.05) / (dark + 0.05)


def test_looks_are_different_and_visible_on_white_and_on_dark() -> None:
    assert palette.LOOKS.keys() == choices("norm").keys()
    users = {f"mine{index}": palette.colour(f"mine{index}") for index in range(200)}
    norms = {name: look.colour for name, look in palette.LOOKS.items()}
    for name, colour in (users | norms).items():
        for background in ("#ffffff", "#121212"):
            assert contrast(colour, background) >= 3, name
    assert palette.look("mine") == ("#d2527c", "^", "--")
    del norms["layer"]  # has the colour of layer_sample
    assert len({*norms.values()}) == len(norms)
    assert len({*palette.DECISIONS.values()}) == 5


def test_norms_of_one_figure_differ_for_all_kinds_of_colour_vision() -> None:
    for name in choices("claim"):
        for design in read_claim(name).designs().values():
            norms = {norm_of(arm, design) for arm in design.arms}
            for one, other in combinations(sorted(norms), 2):
                a, b = linear(palette.colour(one)), linear(palette.colour(other))
                for vision in map(np.array, (np.eye(3), DEUTERANOPIA, PROTANOPIA)):
                    distance = np.linalg.norm(lab(vision @ a) - lab(vision @ b))
                    assert distance > 14, (name, one, other)
                assert palette.look(one).marker != palette.look(other).marker


def test_arms_with_the_same_norm_have_its_colour_and_different_markers() -> None:
    points = {"g1": {}, "group": {"-": Point(1.0)}, "group_ws": {}}
    made = styled_series(points, dict.fromkeys(points, "group"))
    assert [each.label for each in made] == ["g1", "group", "group_ws"]
    assert {each.look.colour for each in made} == {palette.colour("group")}
    assert len({each.look.marker for each in made}) == 3
    assert [each.hollow for each in made] == [True, False, True]
    assert made[1].look == palette.look("group")


def test_the_norm_of_an_arm_is_in_its_overrides_or_its_name() -> None:
    for arm, claim, design, norm in (
        ("again", "group-compromise", "between-mnist5k", "group"),
        ("each_layer", "group-compromise", "adjacency-mnist5k", "group_permuted"),
        ("again", "batch-default", "normal_batch-mnist5k", "batch"),
        ("layer", "batch-size-dependence", "joint-textures", "layer_sample"),
        ("extra", "batch-default", "normal_batch-mnist5k", "extra"),
    ):
        assert norm_of(arm, read_claim(claim).designs()[design]) == norm, arm
    assert norm_of("batch_masked", None) == "batch_masked"
    assert norm_of("group_ws", None) == "group"
    assert norm_of("mine_too", None) == "mine_too"


*COMMITTED, MADE_UP = some_verdicts()  # two seconds each


@pytest.mark.parametrize(
    "verdict",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in COMMITTED), MADE_UP],
    ids=lambda verdict: verdict.claim,
)
def test_every_verdict_is_drawn(verdict: Verdict) -> None:
    claim = read_claim(verdict.claim)
    designs = claim.designs()
    figures = verdict_figures(verdict, claim)
    drawn = {title: drawing.svg(figure) for title, figure in figures.items()}
    used: set[str] = set()
    for name, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        ids = [element.get("id", "") for element in root.iter() if element.get("id")]
        assert len(ids) == len({*ids}) and not used.intersection(ids)
        assert {part.split(")")[0] for part in svg.split("url(#")[1:]} <= {*ids}
        used.update(ids)
        assert_readable(figures[name], name)
    for design in verdict.designs:
        contrasts = " ".join(written(drawn[f"{design.name}-contrasts"]).split())
        texts = " ".join(written(drawn[design.name]).split())
        parts = [p for p in verdict.parts if p.bearings]
        parts = [p for p in parts if any(b.design == design.name for b in p.bearings)]
        for part in parts if len(parts) < 3 else ():
            for text in (texts, contrasts):
                headline = f"{part.shown.capitalize()}"
                assert text.startswith(headline) or f" {headline}" in text
                assert part.sentence in text
        metrics = {contrast.metric for contrast in design.contrasts}
        for metric in metrics:
            assert metric not in texts + contrasts  # words, no code
        own = designs.get(design.name)
        arms = arm_names(own, {cell.cell.partition("@")[0] for cell in design.cells})
        for cell in design.cells:
            if metrics & cell.mean.keys():
                assert arms[cell.cell.partition("@")[0]] in texts, cell.cell
        # Nothing is beyond the axes of contrasts, and the margins are shaded.
        for axes in figures[f"{design.name}-contrasts"].axes:
            low, high = axes.get_xlim()
            for line in axes.lines:
                assert all(low <= x <= high for x in np.ravel(line.get_xdata()))
            assert axes.patches


def assert_readable(figure: Figure, name: str) -> None:
    """Every text is inside the figure; no legend lies on the panels; no empty panel."""
    with drawing.style():
        figure.draw_without_rendering()
    assert figure.texts[0].get_fontweight() == "bold", name
    box = figure.bbox
    outside = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(limits := axis.get_view_interval()) <= tick.get_loc() <= max(limits)
        for label in (tick.label1, tick.label2)
    }  # matplotlib does not draw them
    for text in {*figure.findobj(Text)} - outside:
        if not text.get_text() or not text.get_visible():
            continue
        place = text.get_window_extent()
        assert box.x0 - 1 <= place.x0 and place.x1 <= box.x1 + 1, (name, text)
        assert box.y0 - 1 <= place.y0 and place.y1 <= box.y1 + 1, (name, text)
    for axes in figure.axes:
        assert axes.has_data(), name
        assert axes.get_xlabel(), name
        for legend in figure.legends:
            assert not legend.get_window_extent().overlaps(axes.bbox), name
            for text in figure.texts:
                under = legend.get_window_extent()
                assert not under.overlaps(text.get_window_extent()), (name, text)


def test_effects_are_drawn_in_natural_units_with_shaded_margins(
    batch: Verdict,
) -> None:
    figures = verdict_figures(batch)
    for design in batch.designs:
        axes = figures[f"{design.name}-contrasts"].axes
        # The effect is the last of the lines of a contrast, after both intervals.
        effects = [
            float(np.ravel(line.get_xdata())[0]) for a in axes for line in a.lines[4::4]
        ]
        shown = [c for c in design.contrasts if c.effect is not None]
        assert sorted(effects) == pytest.approx(
            sorted(c.effect for c in shown if c.effect is not None)
        )
        margins = [
            patch.get_width() / 2
            for a in axes
            for patch in a.patches
            if isinstance(patch, Rectangle)
        ]
        assert sorted(margins) == pytest.approx(sorted(c.margin for c in shown))
        labels = {a.get_xlabel() for a in axes}
        assert len(labels) == len(axes)
        assert labels <= {
            "change in per cent (log scale)",
            "difference in points (percentage points)",
            "difference: test loss",
        }
    ratio, _ = batch.mechanisms[0].contrasts
    assert ratio.margin == pytest.approx(np.log(1.1))


def test_directions_arms_levels_and_metrics_are_in_words() -> None:
    claim = read_claim("group-small-batch")
    design = claim.designs()["norm_batch-mnist5k"]
    assert arm_names(design, design.arms) == {
        "batch": "BatchNorm",
        "batch_ws": "BatchNorm with WS",
        "group": "GroupNorm with 4 groups",
        "group_ws": "GroupNorm with 4 groups and WS",
    }
    verdict = committed("group-small-batch")
    (judged,) = (d for d in verdict.designs if d.name == "norm_batch-mnist5k")
    first, *_, interaction = judged.contrasts
    assert ends_of(first, design) == (
        "← GroupNorm with 4 groups and WS better",
        "BatchNorm better →",
    )
    assert ends_of(interaction, design) == ("← lower test error", "higher test error →")
    pads = read_claim("padding-tokens").designs()["harm-language"]
    assert [*level_names(pads, pads.levels).values()] == [
        "natural pads",
        "half of the batches long",
        "pads zeroed, half of the batches long",
    ]
    for name in choices("claim"):
        for registered in read_claim(name).designs().values():
            names = [
                *arm_names(registered, registered.arms).values(),
                *level_names(registered, registered.levels).values(),
            ]
            for text in names:
                assert "=" not in text and "_" not in text, (name, text)
    labels = {
        metric: quantity(metric).label
        for metric in ("test/error", "test/loss", "regrouped/error_increase")
    }
    assert labels == {
        "test/error": "test error (%)",
        "test/loss": "test loss",
        "regrouped/error_increase": "error with new groups minus before (points)",
    }
    point = Point(0.01, -0.02, 0.04, (0.0, 0.02)).drawn(quantity("test/error"))
    assert (point.mean, point.low, point.high) == (1.0, 0.0, 4.0)  # no error below 0


def test_single_seeds_are_beside_their_mean() -> None:
    verdict = committed("rms-layer")
    records = read_compact(CLAIMS / "rms-layer" / "records.jsonl.gz")
    runs = SeedRuns(record for record in records if record.run_id in verdict.run_ids)
    for design in verdict.designs:
        for cell in design.cells:
            values = runs.values(cell, "test/error")
            assert len(values) == cell.n
            assert np.mean(values) == pytest.approx(cell.mean["test/error"])
    changed = cell.model_copy(update={"mean": {"test/error": 0.123}})
    assert runs.values(changed, "test/error") == ()


def test_titles_are_broken_and_never_cut() -> None:
    text = "one two three four " + "x" * 400
    assert "".join(wrapped(text, 2.0, 9)).replace(" ", "") == text.replace(" ", "")
    with drawing.style():
        drawn = framed(Texts(name="n", title=text, notes=text), 1.0)
        assert drawn.add_subplot().set_xlabel("x")
        drawn.axes[0].plot([1, 2])
        assert_readable(drawn, "long")


def written(svg: str) -> str:
    """Return all text of an SVG except its title and description."""
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return " ".join("".join(text.itertext()) for text in texts)


def labels(svg: str) -> list[str]:
    """Return the title and the description of an SVG."""
    root = ElementTree.fromstring(svg)
    return [root.findtext(f"{SVG}{tag}") or "" for tag in ("title", "desc")]


@pytest.fixture(scope="module")
def batch() -> Verdict:
    return rich_verdict()


def test_published_figures_are_marked_as_published(batch: Verdict) -> None:
    (outcome,) = batch.outcomes
    on_digits = {"name": "norm_batch-digits", "data": "digits"}
    designs = [
        outcome.model_copy(update={"name": "norm_batch"}),
        outcome.model_copy(update=on_digits),
        outcome,
    ]
    changes = {"claim": "batch-size-dependence", "outcomes": designs}
    drawn = verdict_figures(batch.model_copy(update=changes))
    for name in ("norm_batch", "norm_batch-digits"):
        texts = written(drawing.svg(drawn[name]))
        assert "published: Wu & He 2018" in texts
        assert "top-1 error (%)" in texts
    assert "published" not in written(drawing.svg(drawn["made_up"]))


def test_published_series_name_existing_designs_arms_and_levels() -> None:
    for source in published():
        all_errors = source.series.values()
        levels = {level for errors in all_errors for level in errors}
        for name, designs in source.shown.items():
            claim = read_claim(name)
            for design_name in designs:
                design = {**claim.mechanisms, **claim.outcomes}[design_name]
                if levels == {"-"}:
                    assert source.series.keys() <= design.arms.keys()
                else:
                    assert levels & design.levels.keys()
                    assert source.series.keys() <= choices("norm").keys()
        for errors in all_errors:
            assert all(0 < error < 1 for error in errors.values())


def test_published_series_have_the_numbers_of_the_claim() -> None:
    wu_he, *_ = published()
    lines = " ".join(read_claim("batch-size-dependence").published)
    for norm, name in (("batch", "BN"), ("group", "GN")):
        errors = (wu_he.series[norm][level] for level in ("32", "16", "8", "4", "2"))
        assert f"{name} {'/'.join(f'{100 * error:.1f}' for error in errors)}" in lines


def test_an_inline_figure_has_a_description_and_the_colours_of_the_page(
    batch: Verdict,
) -> None:
    inline = drawing.svg(verdict_figures(batch)["made_up"])
    root = ElementTree.fromstring(inline)
    title, description = labels(inline)
    assert title == "padding-tokens, made_up"
    assert "test error: BatchNorm at 1 " in description or "a at 1 " in description
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert set((root.get("aria-labelledby") or "").split()) <= set(ids)
    assert root.get("role") == "img"
    assert "currentColor" in inline
    assert drawing.TEXT_COLOUR not in inline
    assert drawing.BACKGROUND not in inline
    assert not inline.startswith("<?xml")
    assert not list(root.iter(f"{SVG}metadata"))


def test_equal_figures_are_equal_bytes(batch: Verdict, tmp_path: Path) -> None:
    one, two = (verdict_figures(batch)["made_up-contrasts"] for _ in range(2))
    assert drawing.svg(one) == drawing.svg(two) == drawing.svg(one)
    first = drawing.save(one, tmp_path / "one" / "a.b")
    second = drawing.save(two, tmp_path / "two" / "a.b")
    assert [file.name for file in first] == ["a.b.svg", "a.b.png"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    ElementTree.fromstring(first[0].read_bytes())
    assert b"currentColor" not in first[0].read_bytes()


def test_hostile_text_stays_text(batch: Verdict) -> None:
    (design,) = batch.mechanisms
    contrasts = [design.contrasts[0].model_copy(update={"name": HOSTILE})]
    cells = [
        cell.model_copy(update={"cell": f"{HOSTILE}@{index}"})
        for index, cell in enumerate(design.cells)
    ]
    changes = {"contrasts": contrasts, "cells": cells, "question": HOSTILE}
    hostile = batch.model_copy(
        update={
            "claim": HOSTILE,
            "mechanisms": [design.model_copy(update=changes)],
            "outcomes": [],
        }
    )
    shapes = {"svg", "g", "path", "defs", "use", "text", "clipPath", "rect"}
    for figure in verdict_figures(hostile).values():
        inline = drawing.svg(figure)
        assert "<script" not in inline
        tags = {e.tag.removeprefix(SVG) for e in ElementTree.fromstring(inline).iter()}
        assert tags <= shapes | {"title", "desc"}
        assert '<script>alert("$x^2$")</script>' in labels(inline)[0]
    assert '"$x^2$"' in written(inline)


def test_an_unwritable_folder_is_an_error_and_leaves_nothing(
    batch: Verdict, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    figure = verdict_figures(batch)["made_up"]
    with pytest.raises(RequestError, match="cannot be written"):
        drawing.save(figure, tmp_path / "file" / "figure")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cell_without_a_mean_is_left_out_and_named(batch: Verdict) -> None:
    design, *_ = batch.outcomes
    skipped = design.cells[0].model_copy(update={"mean": {}, "n": 0, "skipped": "why"})
    changed = design.model_copy(update={"cells": [skipped, *design.cells[1:]]})
    partial = batch.model_copy(update={"outcomes": [changed], "mechanisms": []})
    _, description = labels(drawing.svg(verdict_figures(partial)[design.name]))
    assert "Skipped: a at 1" in description
    assert "a at 1 0" not in description
    empty = batch.model_copy(update={"outcomes": [], "mechanisms": []})
    assert verdict_figures(empty) == {}


def test_drawing_leaves_the_settings_of_matplotlib_unchanged(batch: Verdict) -> None:
    settings = dict(mpl.rcParams)
    drawing.svg(verdict_figures(batch)["made_up"])
    assert dict(mpl.rcParams) == settings


def test_figures_need_no_pyplot_and_no_torch() -> None:
    code = (
        "import sys, normbench.report.figures.verdict\n"
        "import normbench.report.figures.runs\n"
        "import normbench.report.figures.gallery\n"
        "print({'torch', 'hydra', 'matplotlib.pyplot', 'wandb'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_several_numbers_above_0_are_an_axis() -> None:
    assert numeric(["1", "2", "0.5"])
    for levels in (["1"], ["0", "1"], ["1", "two"], []):
        assert not numeric(levels)


def test_lines_of_a_name_have_similar_lengths() -> None:
    assert balanced("one two three four", 0.9, 7.5) == ["one two", "three four"]
    assert balanced("short", 0.9, 7.5) == ["short"]
