"""Measurements of a single norm layer: footprint, invariances, cost."""
