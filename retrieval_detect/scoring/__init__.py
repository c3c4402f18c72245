"""Neighbours → score: votes, weights and attribution. Pure functions over numpy arrays."""
