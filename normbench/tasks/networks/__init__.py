"""Networks that the tasks train or use."""
