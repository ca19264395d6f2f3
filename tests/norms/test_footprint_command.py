"""The pictures of footprints, and the command that measures and draws them."""

import json
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Command
from PIL import Image

from normbench.norms import REGISTRY
from normbench.norms.measure.portrait import NormChoice, portrait
from normbench.report.figures.cubes import COLOURS, colour, draw, faces
from normbench.report.figures.panel import MEASURED, Panel, panels_text, read

SVG = "{http://www.w3.org/2000/svg}"


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
