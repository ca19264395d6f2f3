"""One file per mechanism that is measured on a trained network."""
