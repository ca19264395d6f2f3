"""Leaks through statistics: other samples, pads, and the surroundings of a crop."""

import pytest
import torch
from networks_made import Encoder, Tagger, UNet
from torch import Tensor, nn

from normbench.errors import RequestError
from normbench.models.independence import Mode, Of, leak
from normbench.testing import assert_independent

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TEXT = {
    "ids": torch.randint(1, 50, (4, 7), generator=torch.Generator().manual_seed(1)),
    "attention_mask": torch.ones(4, 7, dtype=torch.bool),
}


class Recentred(nn.Module):
    """Subtracts the mean over the batch, without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(x) - x.mean(0)
        return output


@pytest.mark.parametrize(
    ("norm", "of", "mode", "expected"),
    [
        (nn.BatchNorm2d, "other_samples", "train", True),
        (nn.BatchNorm2d, "other_samples", "eval", False),
        (nn.InstanceNorm2d, "other_samples", "train", False),
        (nn.InstanceNorm2d, "surroundings", "eval", True),
        (nn.BatchNorm2d, "surroundings", "train", True),
        (nn.BatchNorm2d, "surroundings", "eval", False),
    ],
)
def test_a_unet_leaks_what_its_norm_leaks(
    norm: type[nn.Module], of: Of, mode: Mode, expected: bool
) -> None:
    measured = leak(UNet(norm), IMAGES, of, mode)
    assert measured.leaks == expected, measured
    assert measured.layer == ("down.1" if expected else None)
    assert (measured.change > 1e-3) == expected


@pytest.mark.parametrize(
    ("norm", "mode", "expected"),
    [
        (nn.LayerNorm(16), "train", False),
        (nn.RMSNorm(16), "train", False),
        (nn.BatchNorm1d(16), "train", True),
        (nn.BatchNorm1d(16), "eval", False),
        (nn.InstanceNorm1d(16), "eval", True),
    ],
)
def test_pads_move_tokens_through_statistics_over_positions(
    norm: nn.Module, mode: Mode, expected: bool
) -> None:
    measured = leak(Tagger(norm), TEXT, "pads", mode)
    assert measured.leaks == expected, measured
    assert measured.layer == ("norm" if expected else None)


def test_a_leak_without_a_norm_names_no_layer() -> None:
    measured = leak(Recentred(), torch.randn(3, 4), "other_samples", "eval")
    assert measured.leaks and measured.layer is None


def test_a_measurement_does_not_change_the_model() -> None:
    model = UNet()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    leak(model, IMAGES, "other_samples", "train")
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert model.training and model.head.weight.dtype == torch.float32


def test_examples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RequestError, match="at least two samples"):
        leak(UNet(), IMAGES[:1], "other_samples", "eval")
    with pytest.raises(RequestError, match="token ids"):
        leak(UNet(), IMAGES, "pads", "eval")
    with pytest.raises(RequestError, match=r"images \(N, C, H, W\)"):
        leak(Tagger(), TEXT, "surroundings", "eval")
    with pytest.raises(RequestError, match="use larger images"):
        leak(UNet(), IMAGES[..., :4, :4], "surroundings", "eval")
    with pytest.raises(RequestError, match="other_samples, pads, surroundings"):
        leak(UNet(), IMAGES, "nothing", "eval")  # type: ignore[arg-type]  # on purpose


class Constant(nn.Module):
    """Returns NaN, or a number without an axis of samples."""

    def __init__(self, value: float, whole: bool) -> None:
        super().__init__()
        self.value, self.whole = value, whole
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(x) * self.value
        return output.sum() if self.whole else output


def test_outputs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(RequestError, match="not finite"):
        assert_independent(Constant(float("nan"), False), torch.randn(3, 4))
    with pytest.raises(RequestError, match="no output has an axis of samples"):
        assert_independent(Constant(1.0, True), torch.randn(3, 4))


def test_a_padded_transformer_of_torch_is_measured() -> None:
    model = Encoder()
    text = {"ids": TEXT["ids"], "mask": TEXT["attention_mask"]}
    for _ in range(2):
        assert_independent(model, text, of="pads")
        assert_independent(model, text)
        model.eval()


def test_the_assertion_follows_the_mode_of_the_model_and_names_the_layer() -> None:
    model = UNet()
    with pytest.raises(AssertionError, match=r"mode train.*other samples.*down\.1"):
        assert_independent(model, IMAGES)
    assert_independent(model.eval(), IMAGES)
    assert_independent(Tagger(), TEXT, of="pads")
