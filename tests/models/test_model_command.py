"""`normbench doctor --model`: the report and the swap of a user's network."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from normbench.cli import app

SOURCE = """
import torch
from torch import nn

def net(norm="batch", width=8):
    print("the factory prints")
    layers = {"batch": nn.BatchNorm2d(width), "group": nn.GroupNorm(2, width)}
    return nn.Sequential(nn.Conv2d(3, width, 3, bias=False), layers[norm])

def text(vocabulary=50):
    return nn.Sequential(nn.Embedding(vocabulary, 16), nn.LayerNorm(16))

def classifier(classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, classes)
    )

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, ids, attention_mask, scale=1.0):
        return self.norm(ids)

def decayed(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
"""


@pytest.fixture(autouse=True)
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "command_networks.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)


def doctor(*words: str, model: str = "net") -> tuple[int, str]:
    arguments = ["doctor", "--model", f"command_networks:{model}", *words]
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def test_a_report_has_a_table_and_findings() -> None:
    code, text = doctor("--input", "2,3,8,8")
    assert code == 0
    assert "Sequential: 1 norm layer" in text and "BatchNorm2d" in text
    assert "2x8x6x6" in text and "warning  samples per statistic" in text
    assert "the factory prints" not in text


def test_json_has_the_layers_the_findings_and_the_swap() -> None:
    code, text = doctor(
        *("--input", "2,3,8,8", "--model-options", "width=16", "--json"),
        *("--swap", "norm=group", "--swap", "norm.num_groups=auto"),
        *("--optimizer", "command_networks:decayed", "--steps", "5"),
        *("--accumulate", "2"),
    )
    report = json.loads(text)
    assert code == 0 and report["ok"]
    assert report["layers"][0]["channels"] == 16
    what = {finding["what"] for finding in report["findings"]}
    assert {"weight decay", "momentum", "accumulation"} <= what
    (layer,) = report["swap"]["layers"]
    assert layer["after"] == "group" and layer["options"]["num_groups"] == 4
    assert layer["drift"] > 0 and "at most 32" in report["swap"]["rule"]


def test_a_swap_is_printed_with_its_drift_and_rule() -> None:
    code, text = doctor(
        *("--input", "2,3,8,8", "--swap", "norm=group", "--swap", "norm.num_groups=2")
    )
    assert code == 0 and "swap: 1 layer" in text and "drift" in text
    assert "at most 32" not in text


def test_a_network_for_text_needs_the_size_of_its_vocabulary() -> None:
    words = ("--input", "4,7", "--input-dtype", "int64")
    code, text = doctor(*words, "--vocabulary", "50", model="text")
    assert code == 0 and "LayerNorm" in text
    code, text = doctor(*words, model="text")
    assert code == 2 and "--vocabulary 1000" in text
    code, text = doctor(*words, "--vocabulary", "500", model="text")
    assert code == 2 and 'layer "0" (Embedding)' in text


def test_a_data_set_gives_evaluations_gaps_and_leaks() -> None:
    words = ("--data", "digits", "batch_size=16", "--json")
    code, text = doctor(*words, model="classifier")
    report = json.loads(text)
    assert code == 0
    assert report["layers"][0]["input"] == [16, 4, 6, 6]
    assert set(report["evaluations"]["error"]) == {"running", "recomputed", "batch"}
    assert report["evaluations"]["samples"] == 16 * 11
    assert [gap["layer"] for gap in report["gaps"]] == ["1"]
    leaks = {(leak["of"], leak["mode"]): leak["leaks"] for leak in report["leaks"]}
    assert leaks["other_samples", "train"] and not leaks["other_samples", "eval"]
    code, text = doctor(*words[:-1], model="classifier")
    assert "evaluation on 176 validation samples" in text and "gap between" in text


def test_a_network_that_needs_a_mask_is_sent_to_data() -> None:
    code, text = doctor("--input", "2,4", model="Masked")
    assert code == 2 and "--data gives texts and their mask" in text
    assert "Masked needs ids, attention_mask, but --input gives one tensor" in text


def test_an_error_in_the_network_gives_exit_code_1() -> None:
    code, text = doctor(
        *("--input", "2,3,3,3", "--model-options", "norm=group"),
        *("--model-options", "width=2"),
    )
    assert code == 1 and "error    single values" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--input 8,3,224,224"),
        (("--input", "2,x"), "--input 2,x is no shape"),
        (("--input", "2,-3"), "--input 2,-3 is no shape"),
        (("--input", "99999,99999"), "is no shape"),
        (("--input", "2,3,8,8", "norm=group"), "norm=group is a config value"),
        (("--input", "2,3,8,8", "--model-options", "x"), "form KEY=VALUE"),
        (("--input", "2,3,8,8", "--swap", "where=x"), "--swap norm=group"),
        (("--input", "2,3,8,8", "--swap", "norm=group", "--swap", "a=1"), "--swap a"),
        (("--input", "2,3,8,8", "--swap", "norm=grop"), "norm.name=grop is unknown"),
        (("--input", "2,4,8,8"), 'layer "0" (Conv2d)'),
        (("--data", "digits", "--input", "2,1,8,8"), "exclude each other"),
        (("--data", "digit"), "digits"),
        (("--data", "digits", "batch_size=9999"), "use a smaller one"),
    ],
)
def test_a_wrong_request_is_explained(words: tuple[str, ...], message: str) -> None:
    code, text = doctor(*words)
    assert code == 2 and text.startswith("error: ")
    assert message in text


def test_options_of_a_network_without_a_network_are_refused() -> None:
    done = CliRunner().invoke(app, ["doctor", "--input", "2,3,8,8"])
    assert done.exit_code == 2 and "add --model" in done.output


def test_a_module_that_does_not_exist_is_named() -> None:
    done = CliRunner().invoke(app, ["doctor", "--model", "no_such:net", "--input", "2"])
    assert done.exit_code == 2 and "no_such cannot be imported" in done.output
