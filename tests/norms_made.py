"""The source of a user's norm that works or fails in a chosen way."""

ODD = """
import os
import time
from typing import Literal

from torch import Tensor

from normbench.norms import Norm


class OddNorm(Norm, name="odd"):
    source = "nobody 2026"
    axes = "one sample, one channel, one position"

    def __init__(
        self, channels: int, *, does: Literal["works", "raises", "dies", "hangs"]
    ) -> None:
        super().__init__(channels)
        self.does = does

    def forward(self, x: Tensor, mask=None, condition=None) -> Tensor:
        if x.is_meta or self.does == "works":
            return x
        if self.does == "raises":
            raise RuntimeError("odd on purpose")
        if self.does == "dies":
            os.kill(os.getpid(), 9)
        time.sleep(60)
        return x
"""
