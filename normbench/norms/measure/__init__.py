"""What one layer does on tensors: footprint, invariances, cost."""
