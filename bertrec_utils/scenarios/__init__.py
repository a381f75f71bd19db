"""Notebook 05: titles and histories of people (titles), recommendations and reasons (recommender), the panel (panel),
figures and the map (plots)."""
