"""The noise schedule, the noise and the sampler: pure functions over tensors, torch only."""
