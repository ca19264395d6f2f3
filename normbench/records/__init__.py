"""What a run leaves: the store on disk, queries, export, Weights & Biases."""
