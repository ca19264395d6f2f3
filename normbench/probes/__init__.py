"""What a norm does, measured on tensors: no training."""
