"""Measurements as pictures and text: plain data and arrays in, no torch."""
