"""The contract of a data set, and one module per data set."""
