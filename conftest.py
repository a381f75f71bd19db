"""Tests and notebooks alike run with the `tiny` preset, in seconds."""

import os

os.environ["BERTREC_PRESET"] = "tiny"
os.environ.setdefault("MPLBACKEND", "agg")
