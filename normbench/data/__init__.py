"""The contract of a data set, and one file for each data set."""
