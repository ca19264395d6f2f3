"""One forward and backward of a network on an example, observed layer by layer."""

import copy
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from normbench.errors import RequestError
from normbench.models.biases import Biases
from normbench.models.layers import describe, layers, readable

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""The arguments of a forward: one tensor, a tuple of them, or a dict by their names."""

Model = TypeVar("Model", bound=nn.Module)

FUNCTIONS = ("batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm")
"""The functions of torch.nn.functional that normalize."""


def call(model: nn.Module, example: Example) -> Any:
    """Return the output of `model` for an example."""
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, tuple):
        return model(*example)
    return model(example)


def tensors(output: Any) -> list[Tensor]:
    """Return all tensors of an output in floating point, however they are nested."""
    if hasattr(output, "to_tuple"):  # an output of Hugging Face
        output = output.to_tuple()
    leaves = tree_leaves(output)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def moved(example: Example, device: str) -> Example:
    """Return the example with all of its tensors on a device."""
    result: Example = tree_map(
        lambda x: x.to(device) if isinstance(x, Tensor) else x, example
    )
    return result


@contextmanager
def quietly() -> Iterator[None]:
    """Run the user's code: what it prints is dropped, and random states are kept.

    torch's fast path of Transformer layers, which calls no norm, is off meanwhile.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


USERS_ERRORS = (Exception, SystemExit)
"""What the user's code can raise: anything, and it may call sys.exit."""


def copied_model(model: Model) -> Model:
    """Return a deep copy of a model. Raises RequestError if it cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # the user's classes can raise anything
        raise RequestError(
            f"{type(model).__name__} cannot be copied: {one_line(error)}"
        ) from error


@dataclass
class Seen:
    """What a norm was seen doing in one forward.

    `shapes` are those of the input of each call. `after` and `before` name the modules
    that the first input came from and that the output went to, if those passed on the
    same tensor.
    """

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    calls: int = 0
    after: str | None = None
    before: str | None = None


@dataclass
class Observation:
    """A copy of a network after one forward and backward, and what was seen.

    `norms` has an entry for each norm by name. `functional` are names of modules that
    called a function of `FUNCTIONS` outside of a known layer, with the function.
    `redundant` names layers whose bias a norm subtracts, see `models.biases`.
    `training_error` says why the forward in training mode failed; then the forward was
    in evaluation mode, with only the norms in training mode.
    """

    model: nn.Module
    norms: dict[str, Seen] = field(default_factory=dict)
    functional: list[str] = field(default_factory=list)
    redundant: list[str] = field(default_factory=list)
    training_error: str = ""


def observe(model: nn.Module, example: Example, device: str = "cpu") -> Observation:
    """Return what happens in one training forward and backward of a copy of `model`.

    The loss is the mean square of all outputs. On the device "meta", only shapes are
    computed. The model, its random state and its buffers do not change.
    Raises RequestError if the forward fails; the message names the layer that failed
    and the shapes that it got.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise RequestError(
            "a scripted module cannot be examined; pass the module before torch.jit"
        )
    copied = copied_model(model).to(device)
    example = moved(example, device)
    with quietly():
        try:
            return _observe(copied, example, model)
        except RequestError as error:
            if not model.training:
                raise
            reason = str(error)
        copied = copied_model(model).to(device).eval()
        for _, module, _ in layers(copied):
            module.train()
        try:
            observation = _observe(copied, example, model)
        except RequestError:
            raise RequestError(reason) from None
    observation.training_error = reason
    return observation


def _observe(model: nn.Module, example: Example, original: nn.Module) -> Observation:
    """Run a copy `model` of `original`, and observe it."""
    while True:
        observation = Observation(model, {name: Seen() for name, _, _ in layers(model)})
        watch = _Watch(model, observation, Biases(original))
        with watch, torch.enable_grad():
            try:
                output = call(model, example)
                break
            except USERS_ERRORS as error:
                if not watch.failed_for_one_position():
                    raise RequestError(watch.failure(error)) from error
        # torch refuses a single value; other layers can still be examined.
        model.get_submodule(watch.running[-1]).forward = _pass_through
    watch.biases.used(tensors(output))
    observation.redundant = watch.biases.redundant()
    losses = [x.float().square().mean() for x in tensors(output) if x.requires_grad]
    if losses:
        try:
            torch.stack(losses).sum().backward()
        except Exception as error:  # as above
            raise RequestError(f"the backward pass fails: {one_line(error)}") from error
    return observation


def _pass_through(x: Tensor, *args: Any) -> Tensor:
    """Stand in for the forward of a norm that cannot work with its input."""
    return x.clone()


class _Watch(TorchFunctionMode):
    """Notes which modules run, which tensors they pass on, and functional norms."""

    def __init__(
        self, model: nn.Module, observation: Observation, biases: Biases
    ) -> None:
        super().__init__()
        self.observation = observation
        self.biases = biases
        self.running: list[str] = []
        self.shapes: list[str] = []
        self.makers: dict[int, tuple[Tensor, str]] = {}
        self.handles: list[RemovableHandle] = []
        self.inside = 0
        self.model = model

    def __enter__(self) -> "_Watch":
        for name, module in self.model.named_modules():
            is_leaf = not set(dict(module.named_children())) - {"parametrizations"}
            self.handles += [
                module.register_forward_pre_hook(
                    self._begin(name, is_leaf), with_kwargs=True
                ),
                module.register_forward_hook(
                    self._end(name, is_leaf), with_kwargs=True
                ),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]  # torch has no type
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]  # as above
        for handle in self.handles:
            handle.remove()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in FUNCTIONS and not self.inside:
            place = readable(self.running[-1] if self.running else "")
            text = f"{name} in {place}"
            if text not in self.observation.functional:
                self.observation.functional.append(text)
        result = func(*args, **(kwargs or {}))
        if not self.inside and (result is None or _has_tensor(result)):
            self.biases.used(tree_leaves((args, kwargs)))
        return result

    def failed_for_one_position(self) -> bool:
        """Return whether a batch or instance norm failed on a single position."""
        if not self.running or self.running[-1] not in self.observation.norms:
            return False
        module = self.model.get_submodule(self.running[-1])
        layer, shapes = (
            describe(module),
            self.observation.norms[self.running[-1]].shapes,
        )
        return (
            layer is not None
            and layer.kind in ("batch", "instance")
            and "forward" not in vars(module)  # it is not replaced already
            and bool(shapes)
            and shapes[-1][1:2] == (layer.channels,)
            and math.prod(shapes[-1][2:]) == 1
        )

    def _begin(self, name: str, is_leaf: bool) -> Any:
        norm = self.observation.norms.get(name)
        hides = norm is not None or name in self.biases.keeping

        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            self.running.append(name)
            self.shapes.append(", ".join(str(tuple(x.shape)) for x in given))
            self.inside += hides
            if norm is not None:
                norm.calls += 1
                if given:
                    norm.shapes.append(tuple(given[0].shape))
                if given and norm.calls == 1:
                    norm.after = self._maker(given[0])
            elif is_leaf and given and not self.inside:
                previous = self.observation.norms.get(self._maker(given[0]) or "")
                if previous is not None and previous.before is None:
                    previous.before = name

        return hook

    def _end(self, name: str, is_leaf: bool) -> Any:
        norm = self.observation.norms.get(name)
        hides = norm is not None or name in self.biases.keeping
        is_followed = hides or name in self.biases.adding

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self.running.pop()
            self.shapes.pop()
            self.inside -= hides
            if is_followed and not self.inside:
                given = tree_leaves((args, kwargs))
                x = next((x for x in given if isinstance(x, Tensor)), None)
                self.biases.called(name, x, output)
            if isinstance(output, Tensor) and (norm is not None or is_leaf):
                self.makers[id(output)] = output, name

        return hook

    def _maker(self, x: Tensor) -> str | None:
        """Return the name of the layer whose output `x` is."""
        tensor, name = self.makers.get(id(x), (None, None))
        return name if tensor is x else None

    def failure(self, error: BaseException) -> str:
        """Return a message that names the innermost module that failed."""
        if not self.running:
            return (
                f"the forward of {type(self.model).__name__} fails: {one_line(error)}"
            )
        name = self.running[-1]
        kind = type(self.model.get_submodule(name)).__name__
        where = f"layer {readable(name)} ({kind})" if name else kind
        got = self.shapes[-1] or "no tensor"
        return f"{where} fails on an input of shape {got}: {one_line(error)}"


def _has_tensor(result: Any) -> bool:
    return any(isinstance(x, Tensor) for x in tree_leaves(result))


def one_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])
