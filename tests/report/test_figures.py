"""The figures of a verdict."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from verdicts_made import CLAIMS, committed, rich_verdict, some_verdicts

from normbench.config.choices import choices
from normbench.errors import RequestError
from normbench.records.store import read_compact
from normbench.report.figures import drawing
from normbench.report.figures.directions import ends_of
from normbench.report.figures.layout import Texts, balanced, framed, wrapped
from normbench.report.figures.names import arm_names, level_names
from normbench.report.figures.seeds import SeedRuns
from normbench.report.figures.series import Point, numeric
from normbench.report.figures.units import quantity
from normbench.report.figures.verdict import verdict_figures
from normbench.verdicts.registration import read_claim
from normbench.verdicts.verdict import Verdict

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("$x^2$")</script> & \x00\x0b "]]> id="y" url(#z) \N{SNOWMAN}'

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
    runs = SeedRuns(records, verdict.run_ids)
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
