"""Verdicts and claims as text for a terminal."""
