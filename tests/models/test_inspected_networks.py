"""Reports on networks that behave oddly, and reports with data."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normbench
from normbench.errors import RequestError

IMAGES = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class NeedsTargets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor, targets: Any = None) -> Tensor:
        if self.training and targets is None:
            raise ValueError("no targets")
        output: Tensor = self.norm(x)
        return output


def test_a_model_that_needs_targets_in_training_is_examined_without_them() -> None:
    report = normbench.inspect(NeedsTargets(), IMAGES)
    assert [row.calls for row in report.layers] == [1]
    note = {finding.what: finding for finding in report.findings}["training forward"]
    assert "no targets" in note.why
    with_targets = normbench.inspect(NeedsTargets(), (IMAGES, [1]))
    assert "training forward" not in {f.what for f in with_targets.findings}


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_a_scripted_module_is_refused() -> None:
    scripted = torch.jit.trace(nn.BatchNorm2d(3), IMAGES)
    with pytest.raises(RequestError, match="scripted"):
        normbench.inspect(scripted, IMAGES)


class Impolite(nn.Module):
    """Prints, changes the random state and starts a thread in each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        print("a line")
        torch.manual_seed(5)
        thread = threading.Thread(target=torch.rand, args=(3,))
        thread.start()
        thread.join()
        output: Tensor = self.norm(x)
        return output


def test_an_impolite_model_leaves_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    random_state = torch.get_rng_state()
    report = normbench.inspect(Impolite(), IMAGES)
    assert [row.calls for row in report.layers] == [1]
    assert capsys.readouterr().out == ""
    assert torch.equal(torch.get_rng_state(), random_state)


def test_data_give_evaluations_gaps_and_leaks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(1568, 4),
    )
    data = [(IMAGES + i, torch.arange(16) % 4) for i in range(3)]
    report = normbench.inspect(model, IMAGES, data)
    assert report.evaluations is not None and report.evaluations.samples == 48
    assert set(report.evaluations.error) == {"running", "recomputed", "batch"}
    assert [gap.layer for gap in report.gaps] == ["1"] and report.gaps[0].mean > 0.3
    leaks = {(leak.of, leak.mode): leak.leaks for leak in report.leaks}
    assert leaks[("other_samples", "train")] and not leaks[("other_samples", "eval")]
    assert not any(of == "pads" for of, _ in leaks)
    what = {finding.what for finding in report.findings}
    assert "other samples in training" in what
    assert "other samples in evaluation" not in what
