"""The commands of `python -m bertrec_utils`, a module each: what it may be told, and what it does."""
