"""Records in, verdicts out: what a claim registers and how it is judged. No torch."""
