"""What the operating system gives: files of others, locks, signals and streams."""
