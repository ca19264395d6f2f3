"""A small claim, and a function that writes it as a yaml file."""

from pathlib import Path
from typing import Any

import yaml

Plain = dict[str, Any]


TINY: Plain = {
    "name": "tiny",
    "statement": "a is better than b.",
    "source": "nobody",
    "confounds": ["one"],
    "parts": {"better": {"sentence": "a is better than b.", "scope": "digits"}},
    "theorems": [{"check": "layer-shape-fixes-size", "tolerance": 0.0}],
    "outcomes": {
        "digits": {
            "question": "Is it?",
            "common": "task=cnn data.size=14 task.stem_stride=2 task.width=8",
            "arms": {"a": "norm=batch", "b": "norm=group"},
            "levels": {"2": "norm_batch=2", "32": "norm_batch=32"},
            "cells": ["a@2", "a@32", "b@32"],
            "rates": [0.1, 0.2],
            "validation": "val/error",
            "seconds": 1.0,
            "gate": {"metric": "train/error", "below": 0.9},
            "contrasts": [
                {
                    "name": "a against b",
                    "metric": "test/error",
                    "weights": {"a@2": 1.0, "b@32": -1.0},
                    "says": "less",
                    "margin": 0.01,
                    "reason": "a point",
                    "part": "better",
                    "bears": "for",
                }
            ],
        }
    },
    "quick": {"digits": {"cells": ["a@2", "b@32"]}},
}


def put(plain: Plain, folder: Path, name: str = "tiny") -> Path:
    """Write a claim to `folder`/claim/`name`.yaml; return `folder`."""
    file = folder / "claim" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return folder
