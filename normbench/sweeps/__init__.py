"""Sweeps of many runs: plan, execution, forecast, progress, and `doctor`."""
