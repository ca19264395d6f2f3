"""Probes: measurements of a trained network, one module per probe."""
