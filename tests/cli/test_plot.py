"""The command `plot`: the files that it writes, and its errors."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import Result
from pages_made import write_verdict
from PIL import Image
from records_made import a_record, written
from typer.testing import CliRunner

from normbench.cli import app
from normbench.config.identity import run_id
from normbench.records import store

Plot = Callable[..., Result]


@pytest.fixture
def plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plot:
    """Run `normbench plot ARGUMENTS` in an empty folder, by default to SVG."""
    monkeypatch.chdir(tmp_path)

    def plot(*arguments: str) -> Result:
        words = list(arguments)
        if "--format" not in words:
            words += ["--format", "svg"]
        return CliRunner().invoke(app, ["plot", *words])

    return plot


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two norms, two batch sizes, two seeds; one run diverged. Do not change it."""
    results = tmp_path_factory.mktemp("results") / "runs"
    for norm in ("batch", "layer"):
        for batch_size in (2, 8):
            for seed in (0, 1):
                words = (f"norm={norm}", f"batch_size={batch_size}", f"seed={seed}")
                error = 0.5 / batch_size + 0.01 * seed
                finished = a_record(*words, metrics={"test/error": error})
                if (norm, batch_size, seed) == ("layer", 2, 1):
                    changes = {"status": "diverged", "metrics": {"test/error": None}}
                    finished = finished.model_copy(update=changes)
                folder = written(results, finished)
                rows = [
                    {"step": step, "train/batch_loss": 2.0 / step}
                    for step in range(1, 101)
                ]
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                (folder / "history.jsonl").write_text(lines)
    return results


def test_runs_of_tuning_seeds_are_not_drawn(plot: Plot, tmp_path: Path) -> None:
    results = tmp_path / "runs"
    written(results, a_record("seed=0", metrics={"test/error": 0.1}))
    only = ["--by", "seed", "--series", "norm", "--results", str(results)]
    alone = plot(*only, "--output", "alone")
    assert alone.exit_code == 0, alone.output
    written(results, a_record("seed=1000", metrics={"test/error": 0.9}))
    default = plot(*only, "--output", "default")
    assert "1 run of tuning seeds left out; --tuning shows it" in default.stderr
    assert words_in(tmp_path / "default.svg") == words_in(tmp_path / "alone.svg")
    with_tuning = plot(*only, "--output", "both", "--tuning")
    assert "left out" not in with_tuning.stderr
    assert "1000" in words_in(tmp_path / "both.svg")


def words_in(file: Path) -> str:
    """Return all text in an SVG file."""
    texts = ElementTree.parse(file).getroot().iter("{http://www.w3.org/2000/svg}text")
    return " ".join("".join(text.itertext()).strip() for text in texts)


def test_a_claims_figures_are_beside_its_verdict_or_in_the_given_place(
    plot: Plot, runs: Path, tmp_path: Path
) -> None:
    for budget in ("full", "quick"):
        claims = tmp_path / "results" / "claims"
        write_verdict(claims, budget=budget, mechanisms=[])
    names = ["made_up.svg", "made_up-contrasts.svg"]
    for options, files in (
        ([], [f"results/claims/padding-tokens/figures/{name}" for name in names]),
        (
            ["--budget", "quick"],
            [f"results/claims/padding-tokens/figures.quick/{name}" for name in names],
        ),
        (["--output-dir", "here"], [f"here/{name}" for name in names]),
        (["--output", "a/b"], [f"a/b-{name}" for name in names]),
    ):
        done = plot("padding-tokens", *options, "--json")
        assert done.exit_code == 0, done.output
        assert [made["file"] for made in json.loads(done.stdout)] == files
        assert {str(f.name) for f in Path(files[0]).parent.iterdir()} == {
            Path(file).name for file in files
        }
    assert "test error" in words_in(Path("here/made_up.svg"))
    assert "A quick check" not in words_in(Path("here/made_up.svg"))
    quick = Path("results/claims/padding-tokens/figures.quick/made_up.svg")
    assert "A quick check" in words_in(quick)
    done = plot("--by", "batch_size", "--results", str(runs), "--output", "one")
    assert done.output.splitlines()[-1] == "one.svg"


def test_means_over_a_numeric_key_are_curves(plot: Plot, runs: Path) -> None:
    done = plot("--by", "batch_size", "--results", str(runs), "--format", "svg,png")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"figures/test-error-by-batch_size.{kind}" for kind in ("svg", "png")
    ]
    text = words_in(Path("figures/test-error-by-batch_size.svg"))
    for part in (
        "BatchNorm",
        "LayerNorm over C, H, W",
        "SGD batch",
        "test error (%)",
        "1-2 runs",
        "Lowest mean test error: BatchNorm, batch size 8, 6.75 %",
    ):
        assert part in text
    assert "left out: 1 runs that diverged, failed or were skipped" in text
    with Image.open("figures/test-error-by-batch_size.png") as image:
        assert image.width > 1000


def test_means_over_a_key_with_text_are_rows(plot: Plot, runs: Path) -> None:
    done = plot("--by", "norm", "--results", str(runs), "--where", "batch_size=8")
    assert done.exit_code == 0, done.output
    assert "note:" not in done.output
    text = words_in(Path("figures/test-error-by-norm.svg"))
    assert "BatchNorm" in text and "LayerNorm over C, H, W" in text
    done = plot("--by", "norm", "--results", str(runs))
    assert done.exit_code == 0
    assert "differ in batch_size" in done.stderr
    assert done.stdout == "figures/test-error-by-norm.svg\n"


def test_training_curves(plot: Plot, runs: Path) -> None:
    series = ["--series", "norm,batch_size"]
    done = plot("--curves", "--results", str(runs), *series)
    assert done.exit_code == 0, done.output
    text = words_in(Path("figures/train-batch_loss-curves.svg"))
    for label in ("BatchNorm, SGD batch 2", "SGD batch 8", "optimizer step"):
        assert label in text


def test_one_run_per_point_has_no_mean_and_no_interval(plot: Plot, runs: Path) -> None:
    one = ["--results", str(runs), "--where", "seed=0"]
    means, curves = (
        Path("figures/test-error-by-batch_size.svg"),
        Path("figures/train-batch_loss-curves.svg"),
    )
    assert plot("--by", "batch_size", *one).exit_code == 0
    text = words_in(means)
    assert "Lowest test error: BatchNorm, batch size 8, 6.25 %" in text
    assert "One run per point, no interval" in text
    assert plot("--curves", "--series", "norm,batch_size", *one).exit_code == 0
    text = words_in(curves)
    assert "One run per curve" in text and "Lowest training batch loss: " in text
    assert plot("--curves", "--results", str(runs)).exit_code == 0
    assert "Lowest mean training batch loss: " in words_in(curves)


def test_a_gallery_has_a_row_for_each_norm(plot: Plot, tmp_path: Path) -> None:
    for norm in ("instance", "batch"):
        folder = written(tmp_path / "runs", a_record("task=style", f"norm={norm}"))
        pixels = np.zeros((16, 24, 3), dtype=np.uint8)
        pixels[8:, :16] = 200 if norm == "batch" else 100
        pixels[8:, 16:] = 255
        Image.fromarray(pixels).save(folder / "stylised.png")
    done = plot("--gallery", "--results", "runs")
    assert done.exit_code == 0, done.output
    assert (
        words_in(Path("figures/gallery.svg")) == "content, style BatchNorm InstanceNorm"
    )

    buffer = io.BytesIO()
    Image.fromarray(pixels[::-1].copy()).save(buffer, "png")
    (folder / "stylised.png").write_bytes(buffer.getvalue())
    done = plot("--gallery", "--results", "runs")
    assert done.exit_code == 2
    assert "different input pictures" in done.output


WRONG = {
    "": ["CLAIM", "--by", "--curves"],
    "layernorm-axes --curves": ["one of CLAIM"],
    "layernorm-axis": ["layernorm-axis", "layernorm-axes"],
    "batch-default": ["claim check batch-default --budget full"],
    "batch-default --budget quick": ["--budget quick"],
    "--curves --format pdf": ["--format", "pdf", "svg"],
    "--curves --output a --output-dir b": ["exclude each other"],
    "--curves --results nowhere": ["nowhere", "normbench train"],
    "--curves --where seed=99": ["no run with seed=99"],
    "--curves --where sed=1": ["sed", "seed"],
    "--curves --metric train/loss": ["train/loss", "train/batch_loss"],
    "--curves --series nrom": ["--series nrom", "norm"],
    "--by batchsize": ["--by batchsize", "batch_size"],
    "--by lr --series nrom": ["--series nrom", "norm"],
    "--by lr --metric test/eror": ["test/eror", "test/error"],
    "--by lr --where status=diverged": ["no cell has a run"],
    "--gallery": ["pictures", "style"],
}


@pytest.mark.usefixtures("no_package_verdicts")
def test_what_cannot_be_drawn_is_an_error_and_leaves_nothing(
    plot: Plot, runs: Path
) -> None:
    for line, words in WRONG.items():
        arguments = line.split()
        if "--results" not in arguments:
            arguments += ["--results", str(runs)]
        done = plot(*arguments)
        assert (done.exit_code, done.stdout) == (2, ""), (line, done.output)
        assert all(word in done.stderr for word in words), (line, done.stderr)
        assert not Path("figures").exists(), line
    Path("figures").write_text("a file")
    done = plot("--by", "batch_size", "--results", str(runs))
    assert done.exit_code == 2
    assert "figures cannot be written" in done.stderr


def test_different_primary_metrics_are_not_drawn_together(
    plot: Plot, runs: Path
) -> None:
    shutil.copytree(runs, "copy")
    written(Path("copy"), a_record("task=style", primary_metric="test/loss"))
    done = plot("--by", "norm", "--results", "copy")
    assert done.exit_code == 2
    assert "test/error, test/loss" in done.stderr


def test_too_many_curves_are_refused(plot: Plot, tmp_path: Path) -> None:
    record = a_record()
    for index in range(36):
        changes = {"lr": 0.1 + index // 2, "batch_size": 2 + 6 * (index % 2)}
        config = record.config.model_copy(update=changes)
        changes = {"run_id": run_id(config), "config": config}
        written(tmp_path / "runs", record.model_copy(update=changes))
    done = plot("--by", "batch_size", "--series", "lr", "--results", "runs")
    assert done.exit_code == 2
    assert "18 curves are too many" in done.stderr


def test_plot_changes_no_record(plot: Plot, runs: Path) -> None:
    before = {f: f.read_bytes() for f in runs.rglob("*") if f.is_file()}
    assert plot("--by", "batch_size", "--results", str(runs)).exit_code == 0
    assert {f: f.read_bytes() for f in runs.rglob("*") if f.is_file()} == before
    assert len(store.all_records(runs)[0]) == 8
