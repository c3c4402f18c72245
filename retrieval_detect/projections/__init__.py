"""Fitting the maps that banks search through: stored vectors → ``search.projection.Affine``."""
