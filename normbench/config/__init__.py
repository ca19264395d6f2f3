"""Configs of runs: their schema, overrides, composition by Hydra, and run ids."""
