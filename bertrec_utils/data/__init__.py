"""Notebook 01: rating logs (logs), MovieLens releases (releases), sequences and their split (sequences, dataset)."""
