"""Notebook 02: masked batches (masking), the authors' network (bert4rec), ours (modern), the loss (losses)."""
