"""The contract of a task: cnn, transformer, style."""
