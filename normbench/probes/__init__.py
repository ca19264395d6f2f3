"""What a norm does: measured on tensors, and on trained networks."""
