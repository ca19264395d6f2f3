"""Footprints and invariances: known ones, what norms declare, the pictures."""

import json
import re
import subprocess
from collections import Counter
from copy import deepcopy
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import Command
from PIL import Image
from torch import Tensor

from normbench.norms import REGISTRY, Norm, make, names
from normbench.norms.measure.dependence import describe
from normbench.norms.measure.footprint import (
    Footprint,
    footprints,
    same_function,
)
from normbench.norms.measure.invariance import Change, Invariance, invariances
from normbench.norms.measure.portrait import NormChoice, fitting, portrait
from normbench.norms.measure.subject import Mode, subject
from normbench.report.figures.cubes import COLOURS, colour, draw, faces
from normbench.report.figures.panel import MEASURED, Panel, panels_text, read

SVG = "{http://www.w3.org/2000/svg}"
every_norm = pytest.mark.parametrize("name", names())


def small(name: str, masked: bool = False) -> tuple[Norm, tuple[int, ...]]:
    """A norm, and the shape of an input on which its footprint takes little time."""
    choice = NormChoice(name, name, REGISTRY.options(name, {}))
    channels = fitting([choice])
    return choice.make(channels), (3, channels, *((7,) if masked else (3, 3)))


@cache
def measured(name: str, masked: bool = False) -> dict[Mode, Footprint]:
    norm, shape = small(name, masked)
    return {one.mode: one for one in footprints(norm, shape, masked)}


def general(words: str) -> str:
    """Measured words as a class declares them: no numbers, of channels or of parts."""
    words = re.sub(r"channels [\d, -]+: ", "", words)
    words = re.sub(r"(group|window) of \d+ channels", r"\1 of channels", words)
    return words


def parts(words: str) -> set[str]:
    return set(re.split(r"; | \+ ", words))


# What is known.


@pytest.mark.parametrize(
    ("name", "words", "entries"),
    [
        ("batch", "all samples, one channel, all positions", 64),
        ("layer_sample", "one sample, all channels, all positions", 128),
        ("instance", "one sample, one channel, all positions", 16),
        ("layer_position", "one sample, all channels, one position", 8),
        ("group", "one sample, one group of 4 channels, all positions", 64),
        ("none", "one sample, one channel, one position", 1),
    ],
)
def test_known_footprints(name, words, entries):
    norm = make(name, 8, **({"num_groups": 2} if name == "group" else {}))
    before, stream = deepcopy(norm.state_dict()), torch.random.get_rng_state()
    train, *_ = footprints(norm, (4, 8, 4, 4))
    for measured in (train.value, train.gradient):
        assert measured.words == words
        assert measured.count == str(entries)
        assert (measured.entries.sum((3, 4, 5)) == entries).all()
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert all(torch.equal(norm.state_dict()[key], before[key]) for key in before)


def test_masked_statistics_stop_at_the_mask():
    masked, plain = (
        measured(name, True)["train"] for name in ("batch_masked", "batch")
    )
    assert masked.value.words == "all samples, one channel, all real positions"
    assert plain.value.words == "all samples, one channel, all positions"


# What norms declare.


@every_norm
def test_declarations_are_those_measured(name):
    norm, shape = small(name)
    by_mode = measured(name)
    training = [one.either for mode, one in by_mode.items() if mode is not Mode.eval]
    entries = np.logical_or.reduce([one.entries for one in training])
    assert parts(general(describe(entries).words)) == parts(norm.axes)
    assert norm.uses_other_samples == any("all samples" in d.words for d in training)
    assert "all samples" not in by_mode[Mode.eval].either.words
    assert "irregular" not in by_mode[Mode.eval].either.words
    assert norm.differs_in_eval != same_function(norm, shape, Mode.train, Mode.eval)
    if norm.exact_gradient:
        assert all(one.agree for one in by_mode.values())
    if not norm.fixed_spatial:
        masked = [one.either.words for one in measured(name, True).values()]
        assert not any("irregular" in words for words in masked), masked
        assert norm.honours_mask != any("all positions" in words for words in masked)


@every_norm
def test_declared_inexact_gradients_are_inexact_in_some_mode(name):
    norm, shape = small(name)
    exact = []
    with torch.random.fork_rng(devices=[]):
        for mode in Mode:
            one = subject(norm, shape, mode, seed=0)
            x = one.x.requires_grad_()
            options = {"fast_mode": True, "raise_exception": False}
            exact.append(torch.autograd.gradcheck(one, x, **options))
    assert all(exact) == norm.exact_gradient


# What hides: gradients that are stopped or made up, outputs that are dead, dice.


class Toy(Norm, name="toy-footprint"):
    """A norm of one statistic, made as the test asks."""

    def __init__(self, kind: str, channels: int = 4) -> None:
        super().__init__(channels)
        self.kind = kind
        self.register_buffer("forwards", torch.tensor(0))

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        mean = x.mean((0, 2), keepdim=True)
        self.forwards.add_(1)
        if self.kind == "stopped":
            return x - mean.detach()
        if self.kind == "rectified":
            return (x - mean).relu()
        if self.kind == "warm-up":
            return x - mean if int(self.forwards) == 1 else x
        if self.kind == "dice":
            return x + torch.randn(x.shape)
        return x + 0 * mean


# Only `names()` of the package are tested: a toy is no norm of the catalogue.
REGISTRY._classes.pop("toy-footprint")

BATCH, OWN = (
    "all samples, one channel, all positions",
    "one sample, one channel, one pos",
)


@pytest.mark.parametrize(
    ("kind", "value", "gradient"),
    [
        ("stopped", BATCH, OWN),
        ("rectified", BATCH, BATCH),
        ("warm-up", OWN, OWN),
        ("dice", OWN, OWN),
        ("none", OWN, OWN),
    ],
)
def test_value_and_gradient_are_measured_apart(kind, value, gradient):
    train = footprints(Toy(kind), (3, 4, 5))[0]
    assert train.value.words.startswith(value)
    assert train.gradient.words.startswith(gradient)
    assert train.agree == (value == gradient)


def test_a_warm_up_has_a_footprint_of_its_own():
    found = {one.mode: one for one in footprints(Toy("warm-up"), (3, 4, 5))}
    assert found[Mode.first].value.words == BATCH
    assert Mode.first not in {one.mode for one in footprints(Toy("dice"), (3, 4, 5))}


def test_words_of_outputs_that_differ():
    entries = np.zeros((2, 4, 3, 2, 4, 3), dtype=bool)
    for n, c, p in np.ndindex(2, 4, 3):
        if c < 2:
            entries[n, c, p, n, :2] = True
        else:
            entries[n, c, p, :, c] = True
    found = describe(entries)
    assert found.words == (
        "channels 0-1: one sample, one group of 2 channels, all positions; "
        "channels 2-3: all samples, one channel, all positions"
    )
    assert found.count == "6"
    assert [part.output for part in found.parts] == [(0, 1, 0), (0, 3, 0)]
    entries[0, 0, 0, 1, 3, 2] = True
    assert "irregular" in describe(entries).words


# Invariances, by algebra.

NOTHING = {"order", "pads"}
GLOBAL = {"order", "gain", "bias", "weights"}
PER_CHANNEL = GLOBAL | {"channel gain", "channel bias"}


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("none", NOTHING),
        ("affine", NOTHING),
        ("instance", PER_CHANNEL),
        ("batch", PER_CHANNEL),
        ("batch_masked", PER_CHANNEL | {"pads"}),
        ("layer_sample", GLOBAL),
        ("group", GLOBAL),
        ("layer_position", GLOBAL | {"pads"}),
        ("rms", (GLOBAL | {"pads"}) - {"bias"}),
    ],
)
def test_invariances_in_training(name, holds):
    measured = invariances(make(name, 16), (4, 16, 6, 6))
    assert {one.to.value for one in measured if one.holds_in_train} == holds
    changes = [one.train for one in measured]
    assert all(change is not None for change in changes)
    assert all(change < 1e-12 or change > 1e-2 for change in changes), changes


def test_evaluation_with_running_statistics_is_affine():
    measured = {one.to: one for one in invariances(make("batch", 8), (4, 8, 9))}
    assert {to.value for to, one in measured.items() if one.holds_in_eval} == NOTHING
    assert measured[Change.gain].holds_in_train


def test_pads_are_not_measured_for_a_norm_with_one_shape():
    *_, pads = invariances(make("layer_shape", 8), (4, 8, 9))
    assert pads == Invariance(Change.pads, None, None)
    assert pads.holds_in_train is None


# Pictures.


@cache
def panel(name: str) -> Panel:
    options = {"num_groups": 2} if name == "group" else {}
    train = portrait(NormChoice(name, name, options), 8).footprints[0]
    part = train.either.parts[0]
    return Panel(
        title=name,
        words=part.words,
        spatial=(6, 6),
        output=part.output,
        value=train.value.entries[part.output],
        gradient=train.gradient.entries[part.output],
    )


def test_the_visible_faces_are_those_of_the_measured_entries():
    drawn = {
        name: Counter((face.side, face.kind) for face in faces(panel(name)))
        for name in ("batch", "layer_sample", "group")
    }
    # N = 4, C = 8, one row of 6 positions; the output itself is a corner.
    for seen in drawn.values():
        assert seen.total() == 4 * 8 + 8 * 6 + 4 * 6
        assert seen["top", "output"] == seen["side", "output"] == 1
    sides = ("top", "front", "side")
    assert [drawn["batch"][side, "both"] for side in sides] == [3, 5, 23]
    assert [drawn["layer_sample"][side, "both"] for side in sides] == [7, 47, 5]
    assert [drawn["group"][side, "both"] for side in sides] == [3, 23, 5]


def filled(svg: Path) -> Counter[str]:
    """How many shapes of each colour a picture has."""
    return Counter(
        match.group(1)
        for element in ElementTree.parse(svg).iter()
        if (match := re.search(r"fill: (#[0-9a-f]{6})", element.get("style", "")))
        and element.tag in {f"{SVG}path", f"{SVG}use"}
    )


def test_the_svg_has_a_shape_of_its_colour_for_every_face(tmp_path):
    shown = [panel("batch"), panel("instance")]
    svg, png = draw(shown, tmp_path / "new")
    fills = filled(svg)
    wanted = Counter(
        "#" + "".join(f"{round(part * 255):02x}" for part in colour(face))
        for one in shown
        for face in faces(one)
    )
    legend = Counter([COLOURS["both"], COLOURS["output"]])
    for fill, count in wanted.items():
        assert fills[fill] == count + legend[fill], fill

    with Image.open(png) as image:
        image.load()
        assert image.width > 800
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    before = svg.read_bytes(), png.read_bytes()
    assert before == tuple(file.read_bytes() for file in draw(shown, tmp_path))


def test_the_picture_in_the_readme_is_what_the_command_draws(invoke, tmp_path):
    norms = ["batch", "layer_sample", "instance", "group", "norm.num_groups=2"]
    footprint(invoke, *norms, "--output", str(tmp_path))
    shown = Path(__file__).parents[2] / "docs" / "footprint.svg"
    assert filled(shown) == filled(tmp_path / "footprint.svg")


@pytest.mark.slow
def test_the_footprints_of_the_report_are_what_the_command_measures(invoke, tmp_path):
    shown = read(MEASURED)
    names = list(dict.fromkeys(one.title for one in shown))
    footprint(invoke, *names, "norm.num_groups=2", "--output", str(tmp_path))
    measured = [one.plain() for one in read(tmp_path / "footprint.json")]
    assert [one.plain() for one in shown] == measured


def test_what_only_the_value_or_the_gradient_depends_on_has_its_own_colour():
    train = footprints(Toy("stopped", 2), (2, 2, 3))[0]
    one = Panel(
        "toy", "", (3,), (0, 1, 0), train.value.entries[0, 1, 0],
        train.gradient.entries[0, 1, 0],
    )  # fmt: skip
    assert Counter(one.kinds().ravel().tolist()) == {"none": 6, "value": 5, "output": 1}


def test_the_picture_as_text():
    grid = panels_text([panel("batch"), panel("layer_position")], 100).splitlines()
    assert grid[0].split() == ["batch", "layer_position"]
    assert grid[2] == "  0 . . . . . . . @     0 + + + + + + + O"
    assert grid[3] == "  1 . . . . . . . #     1 . . . . . . . ."


# The command.


def footprint(invoke: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = invoke("footprint", *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_the_command_prints_json_and_writes_pictures(invoke: Command, tmp_path: Path):
    request = ["batch", "group", "norm.num_groups=2", "--task", "transformer"]
    done = footprint(invoke, *request, "--json", "--output", "pictures")
    batch, group = json.loads(done.stdout)
    assert (batch["name"], group["name"]) == ("batch", "group")
    assert list(group["norm"].items())[:2] == [("name", "group"), ("num_groups", 2)]
    assert group["shape"] == [4, 8, 9]
    assert group["axes"] == REGISTRY.get("group").axes
    modes = {(mode["mode"], mode["mask"]): mode for mode in batch["modes"]}
    assert modes["train", True]["value"]["entries"] == [36, 36]
    assert modes["eval", False]["value"]["entries"] == [1, 1]
    assert all(mode["agree"] for mode in modes.values())
    holds = {one["to"]: one["holds_in_train"] for one in batch["invariances"]}
    assert holds["channel_gain"] is True
    assert holds["pads"] is False
    pictures = tmp_path / "pictures"
    files = {file.name for file in pictures.iterdir()}
    assert files == {"footprint.svg", "footprint.png", "footprint.json"}
    drawn = read(pictures / "footprint.json")
    assert [(one.title, one.count) for one in drawn] == [("batch", 36), ("group", 36)]


def test_the_command_prints_a_table_of_100_columns_with_the_alias(invoke: Command):
    done = footprint(invoke, "layer", "instance")
    assert "one sample, all channels, all positions" in done.stdout
    assert "one sample, one channel, all positions" in done.stdout
    assert all(len(line.rstrip()) <= 100 for line in done.stdout.splitlines())


def test_a_norm_and_a_task_of_the_users_own_are_measured(
    invoke: Command, tmp_path: Path
):
    for group, name, content in (
        ("norm", "halves", "# Two groups\nname: group\nnum_groups: 2\n"),
        ("task", "words", "# Small\ndefaults: [transformer]\n"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(content)
    request = ["halves", "--config-dir", str(tmp_path), "--json"]
    for task, shape in (("cnn", [4, 8, 6, 6]), ("words", [4, 8, 9])):
        done = footprint(invoke, *request, "--task", task)
        (halves,) = json.loads(done.stdout)
        assert (halves["name"], halves["shape"]) == ("halves", shape)
        assert halves["modes"][0]["value"]["words"] == (
            "one sample, one group of 4 channels, all positions"
        )


def test_a_wrong_request_exits_with_2(invoke: Command, tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "footprint.json").mkdir(parents=True)
    for arguments, words in (
        (["grop"], ["norm=grop", "'group'"]),
        (["norm.eps=1"], ["name a norm"]),
        (["batch", "norm.num_groups=2"], ["norm.num_groups", "batch"]),
        (["group", "norm.num_groups=two"], ["norm.num_groups", "two"]),
        (["batch", "--task", "cn"], ["task=cn", "'cnn'"]),
        (["none", "--output", "file"], ["--output file"]),
    ):
        done = invoke("footprint", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("error: ")
        assert all(word in done.stderr for word in words), done.stderr
    done = invoke("footprint", "none", "--output", "taken")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --output taken cannot be written: ")
