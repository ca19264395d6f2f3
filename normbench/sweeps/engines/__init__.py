"""Engines: backends that execute the runs of a plan on this machine or a cluster."""
