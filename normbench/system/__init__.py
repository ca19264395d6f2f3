"""Operating system services: files, locks, signals and output streams."""
