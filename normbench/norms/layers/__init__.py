"""One file per norm."""
