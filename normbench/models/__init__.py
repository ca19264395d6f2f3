"""The user's own networks: find their norms, examine them, and swap them."""
