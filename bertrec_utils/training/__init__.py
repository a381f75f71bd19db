"""Notebook 03: batches of a process (batches), the training loop (trainer), its start from counts (initial_weights),
saved models (checkpoints), devices and processes (devices)."""
