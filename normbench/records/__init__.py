"""Records of runs: the store on disk, queries, export, and Weights & Biases."""
