"""The config section `norm_noise`: noise after every norm in training."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

Size = Annotated[float, Field(ge=0)]


class NormNoise(
    BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False
):
    """The noise after every norm in training. The formulas are in `norms/noise.py`.

    `kind` is "none", "activation" (Santurkar et al. 2018) or "statistic" (as of the
    mean and the standard deviation of a norm batch). `shift` and `scale` are the size
    of the noise that is added and of the noise of the factor. `spread` is the size of
    the noise of single values, which only "activation" has.
    """

    kind: Literal["none", "activation", "statistic"] = "none"
    shift: Size = 0.0
    scale: Size = 0.0
    spread: Size = 0.0

    @model_validator(mode="after")
    def _require_used_sizes(self) -> Self:
        used = {
            "none": {},
            "statistic": {"shift", "scale"},
            "activation": {"shift", "scale", "spread"},
        }[self.kind]
        for name in ("shift", "scale", "spread"):
            value = getattr(self, name)
            if value and name not in used:
                right = "activation" if name == "spread" else "activation or statistic"
                raise ValueError(
                    f"{name}={value} does not apply to kind={self.kind}; set "
                    f"norm_noise.kind={right}, or norm_noise.{name}=0.0"
                )
        return self
