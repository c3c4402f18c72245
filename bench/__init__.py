"""Measurements of rd: how well it tells, how fast it is, how much it takes. See README.md."""
