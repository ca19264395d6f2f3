"""Verdicts and runs as figures."""
