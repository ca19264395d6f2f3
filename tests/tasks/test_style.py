"""The style-transfer task on random crops, with norms of torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from photographs_made import SIDE, random_photographs, with_styles
from torch import Tensor, nn

from normbench.data.base import Photographs
from normbench.data.reading import cache
from normbench.errors import RequestError
from normbench.norms import NormFactory
from normbench.tasks.base import NormFactory as AnyNorm
from normbench.tasks.style import Style, gram, relative_error

CPU = torch.device("cpu")


class TorchNorm(nn.Module):
    """Gives a layer of torch the call signature of the norms of normbench."""

    def __init__(self, layer: nn.Module, activation: type[nn.Module] | None) -> None:
        super().__init__()
        self.layer = layer
        self.activation = activation() if activation else nn.Identity()

    def forward(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        y: Tensor = self.activation(self.layer(x))
        return y


def instance(channels: int, activation: type[nn.Module] | None = None) -> nn.Module:
    return TorchNorm(nn.InstanceNorm2d(channels, affine=True), activation)


def batch(channels: int, activation: type[nn.Module] | None = None) -> nn.Module:
    return TorchNorm(nn.BatchNorm2d(channels), activation)


def identity(channels: int, activation: type[nn.Module] | None = None) -> nn.Module:
    return TorchNorm(nn.Identity(), activation)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NORMBENCH_CACHE", str(tmp_path))


@pytest.fixture
def photographs() -> Photographs:
    return random_photographs()


@pytest.fixture
def task(photographs: Photographs) -> Style:
    return Style(photographs, CPU, width=4, blocks=1)


def build(task: Style, norm: AnyNorm = instance) -> nn.Module:
    torch.manual_seed(0)
    return task.build(norm)


@pytest.mark.parametrize("norm", [instance, batch, identity])
def test_thirty_steps_lower_the_loss_of_one_batch(task: Style, norm: AnyNorm) -> None:
    model, index = build(task, norm), torch.arange(4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = task.loss(model, index)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_the_gradient_reaches_every_parameter(task: Style) -> None:
    model = build(task)
    task.loss(model, torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_a_norm_follows_every_convolution_except_the_last_which_has_a_bias(
    photographs: Photographs,
) -> None:
    norm_channels = []

    def norm(channels: int, activation: type[nn.Module] | None = None) -> nn.Module:
        norm_channels.append(channels)
        return instance(channels, activation)

    model = build(Style(photographs, CPU, width=4, blocks=2), norm)
    *others, last = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert sorted(norm_channels) == sorted(conv.out_channels for conv in others)
    assert model.output_layers == [last]
    assert last.bias is not None
    assert all(conv.bias is None for conv in others)


@pytest.mark.parametrize("size", [(6, 10), (20, 36), (64, 64)], ids=str)
def test_the_output_is_a_picture_of_the_same_size(
    task: Style, size: tuple[int, int]
) -> None:
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        y = build(task)(x)
    assert y.shape == x.shape
    assert y.min() >= 0 and y.max() <= 1


@pytest.mark.parametrize("size", [(33, 32), (32, 4)], ids=str)
def test_crops_of_odd_or_small_sides_are_refused(
    photographs: Photographs, size: tuple[int, int]
) -> None:
    crops = torch.rand(2, 3, *size)
    odd = Photographs(crops, photographs.styles, "odd", photographs.splits)
    with pytest.raises(RequestError, match=f"{size[0]}x{size[1]}; set data.crop"):
        Style(odd, CPU)


def test_loss_of_a_batch_is_the_mean_over_its_samples(task: Style) -> None:
    model, index = build(task), torch.tensor([3, 0, 7, 20])
    with torch.no_grad():
        whole = task.loss(model, index)
        single = torch.stack([task.loss(model, i) for i in torch.split(index, 1)])
    torch.testing.assert_close(whole, single.mean())


def test_loss_is_content_plus_weighted_style(photographs: Photographs) -> None:
    task = Style(photographs, CPU, width=4, blocks=1, style_weight=7)
    model, index = build(task), torch.tensor([1, 2])
    with torch.no_grad():
        content, style = task.terms(model(*task.inputs(index)), index)
        loss = task.loss(model, index)
    torch.testing.assert_close(loss, content.mean() + 7 * style.mean())


def test_a_crop_has_no_content_loss_against_itself(task: Style) -> None:
    index = torch.tensor([2, 9])
    with torch.no_grad():
        same, _ = task.terms(task.crops[index], index)
        other, _ = task.terms(task.crops[index.flip(0)], index)
    torch.testing.assert_close(same, torch.zeros(2), rtol=0, atol=1e-6)
    assert (other > 0.1).all()


def test_the_style_has_no_style_loss_against_itself(task: Style) -> None:
    index = torch.tensor([0])
    features = task.perceptual(task.styles)
    for feature, target in zip(features, task.style_targets, strict=True):
        assert relative_error(gram(feature), target).item() < 1e-6
    with torch.no_grad():
        _, style_of_crop = task.terms(task.crops[index], index)
    assert style_of_crop.item() > 0.05


def test_crop_i_has_style_i_mod_the_number_of_styles(photographs: Photographs) -> None:
    photographs = with_styles(photographs, 3)
    task = Style(photographs, CPU, width=4, blocks=1)
    assert task.conditions == 3
    index = torch.tensor([5, 7, 9])
    crops, condition = task.inputs(index)
    assert torch.equal(crops, photographs.crops[index])
    assert condition.dtype == torch.int64 and condition.tolist() == [2, 1, 0]
    with torch.no_grad():
        _, style = task.terms(photographs.styles[condition], index)
    torch.testing.assert_close(style, torch.zeros(3), rtol=0, atol=1e-6)
    with torch.no_grad():
        _, style = task.terms(photographs.styles[condition.roll(1)], index)
    assert (style > 0.005).all()


def test_every_norm_gets_the_style_indices(photographs: Photographs) -> None:
    conditions = []

    class RecordingNorm(TorchNorm):
        def forward(
            self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
        ) -> Tensor:
            conditions.append(condition)
            return super().forward(x, mask, condition)

    def norm(channels: int, activation: type[nn.Module] | None = None) -> nn.Module:
        return RecordingNorm(nn.Identity(), activation)

    task = Style(with_styles(photographs, 2), CPU, width=4, blocks=2)
    task.loss(build(task, norm), torch.tensor([1, 2, 3]))
    assert len(conditions) == 7
    assert all(c is not None and c.tolist() == [1, 0, 1] for c in conditions)


def test_conditional_instance_norm_draws_one_crop_in_several_styles(
    photographs: Photographs,
) -> None:
    task = Style(with_styles(photographs, 2), CPU, width=4, blocks=1)
    factory = NormFactory("conditional_instance", {"conditions": 2}, 4, conditions=2)
    model = build(task, factory)
    with torch.no_grad():
        for norm in factory.modules:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        crop = task.crops[:1].expand(2, -1, -1, -1)
        first, second = model(crop, torch.tensor([0, 1]))
        assert not torch.allclose(first, second)
        torch.testing.assert_close(model(crop[:1]), first[None])


def test_gram_is_the_second_moment_of_the_channels() -> None:
    x = torch.tensor([[[[1.0, 3.0]], [[2.0, -2.0]]]])
    assert gram(x).tolist() == [[[5.0, -2.0], [-2.0, 4.0]]]


def test_relative_error_is_zero_at_the_target_and_one_at_zero() -> None:
    target = torch.tensor([[3.0, 4.0]])
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 9.0]])
    assert relative_error(x, target).tolist() == [0.0, 1.0, 1.0]


def test_evaluation_does_not_depend_on_its_batch_size(task: Style) -> None:
    model = build(task).eval()
    test = task.splits["test"]
    by_two, at_once = (task.evaluate(model, test, size) for size in (2, 5))
    assert by_two.keys() == {"loss", "content", "style"}
    assert by_two == pytest.approx(at_once, rel=1e-5)
    with torch.no_grad():
        loss = task.loss(model, task.splits["test"]).item()
    assert by_two["loss"] == pytest.approx(loss, rel=1e-5)


def test_evaluation_does_not_change_the_training_flag(task: Style) -> None:
    for training in (True, False):
        model = build(task).train(training)
        task.evaluate(model, task.splits["val"], 2)
        task.pictures(model)
        assert all(module.training == training for module in model.modules())


def test_evaluation_of_the_training_split_uses_only_eval_crops(
    photographs: Photographs,
) -> None:
    task = Style(photographs, CPU, width=4, blocks=1, eval_crops=4)
    assert task.evaluation_samples("train").tolist() == [0, 1, 2, 3]
    assert task.evaluation_samples("val").equal(task.splits["val"])


def test_targets_are_computed_once_and_then_read_from_the_cache(
    photographs: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Style(photographs, CPU)
    content, styles = first.content_targets, first.style_targets
    second = Style(photographs, CPU)
    monkeypatch.setattr(Style, "_make_targets", lambda self: pytest.fail("recomputed"))
    assert torch.equal(second.content_targets, content)
    assert all(map(torch.equal, second.style_targets, styles))
    assert second.content_targets is second.content_targets  # not read at every step


def test_cached_targets_belong_to_their_photographs(photographs: Photographs) -> None:
    first = Style(photographs, CPU).content_targets
    other = Photographs(
        photographs.crops.flip(3), photographs.styles, "flipped", photographs.splits
    )
    second = Style(other, CPU)
    with torch.no_grad():
        fresh = second.perceptual(second.crops)[2]
    torch.testing.assert_close(second.content_targets, fresh)
    assert not torch.allclose(first, second.content_targets)


def test_a_forward_pass_without_a_loss_computes_no_target(
    photographs: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "folder", lambda: pytest.fail("opened the cache"))
    task = Style(photographs, CPU, width=4)
    index = torch.arange(4)
    with torch.device("meta"), torch.no_grad():
        model = task.build(instance)
        output = model(*(x.to("meta") for x in task.inputs(index)))
    assert output.shape == (4, 3, SIDE, SIDE)


def test_a_run_imports_no_package_of_models() -> None:
    program = """
import sys, torch
from normbench.data.base import Photographs
from normbench.tasks.style import Style
index = torch.arange(2)
splits = {"train": index, "val": index, "test": index}
data = Photographs(torch.rand(2, 3, 16, 16), torch.rand(1, 3, 16, 16), "x", splits)
task = Style(data, torch.device("cpu"), width=4)
class Nothing(torch.nn.Module):
    def forward(self, x, mask=None, condition=None):
        return x
model = task.build(lambda channels, activation=None: Nothing())
task.loss(model, index).backward()
print(sorted({"timm", "torchvision", "skimage"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
