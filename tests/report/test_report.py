"""The command `report`: the page, the messages, and the modules it must not import."""

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages_made import (
    COMMITTED,
    ROOT,
    write_run,
    write_small,
    write_style,
    write_verdict,
)
from PIL import Image
from records_made import A_RECORD
from typer.testing import CliRunner, Result

from normbench.cli import app
from normbench.records.store import read_compact, run_folder
from normbench.report.figures.cubes import cube, faces
from normbench.report.figures.panel import MEASURED, read
from normbench.report.page import document, page
from normbench.report.page.columns import evenly_spaced, max_points, pack
from normbench.report.page.material import gather
from normbench.report.page.pictures import MAX_PICTURES, gallery
from normbench.verdicts.registration import read_claim, registration_hash

pytestmark = pytest.mark.usefixtures("no_package_verdicts")


def report(tmp_path: Path, *arguments: str) -> Result:
    (tmp_path / "claims").mkdir(exist_ok=True)
    folders = [
        "--results",
        str(tmp_path / "runs"),
        "--claims",
        str(tmp_path / "claims"),
    ]
    output = ["--output", str(tmp_path / "report.html")]
    return CliRunner().invoke(app, ["report", *folders, *output, *arguments])


def unpacked(html: str) -> dict[str, Any]:
    (data,) = re.findall(r'id="data">([^<]*)<', html)
    plain: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(data)))
    return plain


@pytest.mark.slow
def test_all_verdicts_make_a_page_without_torch(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    ignored = shutil.ignore_patterns("archive-*")
    shutil.copytree(COMMITTED, claims, ignore=ignored)
    write_verdict(claims)
    code = (
        "import sys; from normbench.cli import app\n"
        f"app(['report', '--json', '--output', {str(tmp_path / 'page.html')!r},\n"
        f"     '--claims', {str(claims)!r}], standalone_mode=False)\n"
        "print({'torch', 'hydra', 'wandb'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    progress, imported = done.stderr.splitlines()
    assert progress.startswith("drawing the figures of ")
    assert imported == "set()"
    summary = json.loads(done.stdout)
    run_ids = {
        record.run_id
        for file in claims.glob("*/records.jsonl.gz")
        for record in read_compact(file)
    }
    assert summary["runs"] >= len(run_ids) > 0
    assert summary["bytes"] == (tmp_path / "page.html").stat().st_size < page.MAX_BYTES
    figures = [Path(file) for file in summary["figures"]]
    assert {file.stem for file in figures} >= {
        f"padding-tokens-{name}{kind}"
        for name in ("how-digits", "made_up")
        for kind in ("", "-contrasts")
    }
    assert {file.suffix for file in figures} == {".svg", ".png"}
    assert all(file.is_file() for file in figures)
    html = (tmp_path / "page.html").read_text()
    registered = list((ROOT / "configs" / "claim").glob("*.yaml"))
    for file in registered:
        assert f'id="claim-{file.stem}"' in html
    verdicts = list(claims.glob("*/verdict.json"))
    assert html.count("no verdict yet</td>") == len(registered) - len(verdicts)


def test_an_unwritable_folder_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "claims").mkdir()
    for output in (tmp_path / "file" / "report.html", tmp_path):
        files = sorted(tmp_path.rglob("*"))
        done = report(tmp_path, "--output", str(output))
        assert done.exit_code == 2
        progress, error = done.stderr.splitlines()
        assert progress.startswith("drawing the figures of ")
        assert f"--output {output} cannot be written" in error
        assert sorted(tmp_path.rglob("*")) == files
    write_small(tmp_path / "runs")
    write_verdict(tmp_path / "claims")
    done = report(tmp_path, "--figures", str(tmp_path / "file"))
    assert done.exit_code == 2
    assert f"{tmp_path / 'file'} cannot be written" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_the_page_has_the_values_of_the_records_and_is_reproducible(
    tmp_path: Path,
) -> None:
    runs = sorted(write_small(tmp_path / "runs"), key=lambda record: record.run_id)
    pages = []
    for _ in range(2):
        assert report(tmp_path).exit_code == 0
        pages.append((tmp_path / "report.html").read_text())
    assert pages[0] == pages[1]
    plain = unpacked(pages[0])
    facts = {fact["key"]: fact for fact in plain["facts"]}

    def fact(key: str, run: int) -> Any:
        codes = facts[key]["codes"]
        return facts[key]["values"][codes[run] if codes else 0]

    for i, record in enumerate(runs):
        config = record.config
        assert fact("run_id", i) == record.run_id
        assert fact("norm", i) == config.norm.name
        assert fact("optimizer.weight_decay", i) == config.optimizer.weight_decay
        assert fact("status", i) == record.status
        error = record.metrics["test/error"]
        assert plain["metrics"]["test/error"][i] == (error and pytest.approx(error))
        assert bool(plain["curves"][i]) == (record.status == "ok")
    assert facts["task"]["codes"] is None
    assert set(plain["colours"]) == {record.config.norm.name for record in runs}
    steps, values = next(filter(None, plain["curves"]))["train/batch_loss"]
    assert plain["steps"][steps] == [1, 2, 3, 4, 5]
    assert plain["values"][values][2] is None
    assert "norm" in plain["experiment"]
    assert not {"seed", "device", "status"} & set(plain["experiment"])


def test_long_histories_are_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    losses: list[float | None] = [1 / (1 + i) for i in range(1000)]
    write_run(tmp_path / "runs", 1, losses=losses)
    done = report(tmp_path)
    assert "note: 1 curves thinned" in done.stderr
    html = (tmp_path / "report.html").read_text()
    assert "1 of 1 curves are thinned to 200 points" in html
    (steps,) = unpacked(html)["steps"]
    assert (len(steps), steps[0], steps[-1]) == (200, 1, 1000)
    assert evenly_spaced(3, 5) == [0, 1, 2]
    assert evenly_spaced(9, 5) == [0, 2, 4, 6, 8]


def test_a_page_that_is_too_large_loses_points_then_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float | None] = [(i * 7919 % 1000) / 997 for i in range(190)]
    for number in range(20):
        write_run(tmp_path / "runs", number, losses=losses[number:])
    material = gather(tmp_path / "runs", tmp_path / "claims")
    full = page.render(material, {}, {})
    assert full.packed.points == max_points(material) == 200
    without_curves = pack(material, {}, 0)
    min_bytes = len(full.html) - len(full.packed.text) + len(without_curves.text)
    monkeypatch.setattr(page, "MAX_BYTES", (min_bytes + len(full.html)) // 2)
    thinned = page.render(material, {}, {})
    assert 0 < thinned.packed.points < 200
    assert thinned.packed.thinned == 20
    monkeypatch.setattr(page, "MAX_BYTES", min_bytes + 200)
    assert "Curves are left out" in page.render(material, {}, {}).html
    monkeypatch.setattr(page, "MAX_BYTES", 1000)
    with pytest.raises(page.NormbenchError, match="20 runs make a page of more than"):
        page.render(material, {}, {})


def test_failed_damaged_and_unfinished_runs_are_listed(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_small(runs)
    damaged = write_run(runs, 90)
    (run_folder(runs, damaged.run_id) / "result.json").write_text("{")
    unfinished = write_run(runs, 91)
    (run_folder(runs, unfinished.run_id) / "result.json").unlink()
    unreadable = write_run(runs, 92)
    (run_folder(runs, unreadable.run_id) / "history.jsonl").unlink()
    done = report(tmp_path)
    assert "note: 1 histories unreadable" in done.stderr
    html = (tmp_path / "report.html").read_text()
    failures = html.partition('id="failures"')[2]
    assert "the loss was not finite" in failures
    assert "MemoryError: none" in failures
    assert "Damaged results, left out: 1 (" in failures
    assert damaged.run_id in failures
    assert "Runs without a result, still running or interrupted: 1 (" in failures
    assert unfinished.run_id in failures
    assert f"could not be read: {unreadable.run_id}" in html


def test_a_quick_check_counts_if_there_is_no_full_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing takes seconds and is not tested here.
    monkeypatch.setattr(document, "verdict_figures", lambda *_: {})
    claims, file = tmp_path / "claims", tmp_path / "report.html"
    hashed = registration_hash(read_claim("padding-tokens"))
    for changes, limitations in (
        ({"budget": "quick", "registration": hashed}, {"quick"}),
        ({"budget": "quick"}, {"quick", "changed"}),
        ({"registration": hashed}, set()),
    ):
        write_verdict(claims, **changes)
        assert report(tmp_path).exit_code == 0
        html = file.read_text()
        quick = "This is a quick check, not the registered one." in html
        assert quick == ("quick" in limitations)
        changed = "has changed since this verdict" in html
        assert changed == ("changed" in limitations)


def test_the_gallery_has_a_picture_of_every_norm(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for number in range(MAX_PICTURES):
        write_style(runs, number + 1, "affine", "red")
    without_picture = write_run(runs, 200)
    write_style(runs, 201, "rms", "blue")
    pictures = gallery(gather(runs, tmp_path / "claims"))
    # Runs that differ only in the seed count once.
    (content,) = pictures.contents
    assert [output.norm for output in content.outputs] == ["affine", "rms"]
    assert pictures.left_out == MAX_PICTURES - 1
    run_ids = {output.run_id for output in content.outputs}
    assert without_picture.run_id not in run_ids


def test_other_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_style(runs, 1, "batch", "red")
    invalid = [5, "brick", {"a": 1}, ["brick"] * 3, ["brick"] * 9]
    for number, styles in enumerate(invalid, 2):
        write_style(runs, number, "group", "red", data={"styles": styles})
    for number, size in enumerate([(24, 1), (40000, 4), (4, 40000), (1, 16)], 20):
        before = {*runs.glob("??/*")}
        write_style(runs, number, "group", "red", data={"odd": number})
        (folder,) = {*runs.glob("??/*")} - before
        Image.new("RGB", size).save(folder / "stylised.png")
    pictures = gallery(gather(runs, tmp_path / "claims"))
    assert [len(content.outputs) for content in pictures.contents] == [1]
    assert len(pictures.unreadable) == len(invalid) + 4
    assert report(tmp_path).exit_code == 0
    assert (
        "The pictures of these runs could not be read: "
        in (tmp_path / "report.html").read_text()
    )


def test_contents_have_the_options_that_distinguish_them(tmp_path: Path) -> None:
    """The record of an older version may lack an option, here `data.content`."""
    runs = tmp_path / "runs"
    write_style(runs, 1, "batch", "red", content="blue")
    write_style(runs, 2, "group", "red", content="blue")
    write_style(runs, 3, "batch", "red", content="navy", data={"content": "contrast"})
    contents = gallery(gather(runs, tmp_path / "claims")).contents
    assert [content.difference for content in contents] == ["", "data.content contrast"]
    assert [len(content.outputs) for content in contents] == [2, 1]


def test_a_cube_has_all_faces_of_the_measured_footprint() -> None:
    panels = read(MEASURED)
    assert {"batch", "layer_sample", "instance", "group"} <= {p.title for p in panels}
    for panel in panels:
        paths = sum(path.count("M") for _, _, path in cube(panel).shapes)
        assert paths == len(list(faces(panel)))
        assert panel.count > 0


def test_claims_of_a_user_are_in_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "claim"
    folder.mkdir(parents=True)
    text = (ROOT / "configs" / "claim" / "layernorm-axes.yaml").read_text()
    (folder / "my-claim.yaml").write_text(text.replace("layernorm-axes", "my-claim"))
    done = report(tmp_path, "--config-dir", str(tmp_path / "mine"))
    assert done.exit_code == 0, done.output
    html = (tmp_path / "report.html").read_text()
    assert 'id="claim-my-claim"' in html
    assert f"There are no runs in <code>{tmp_path / 'runs'}</code>" in html
    assert "no verdict yet" in html
    assert not (tmp_path / "report-figures").exists()


def test_runs_know_the_claims_that_use_them(tmp_path: Path) -> None:
    verdict = write_verdict(tmp_path / "claims")
    material = gather(tmp_path / "runs", tmp_path / "claims")
    assert material.claims_of == {A_RECORD.run_id: [verdict.claim]}
    for claims in (COMMITTED, tmp_path / "claims"):
        material = gather(tmp_path / "runs", claims)
        run_ids = {record.run_id for record in material.records}
        assert material.claims_of.keys() <= run_ids
