"""How fast: ratios measured in one run, beside peers and physical limits."""
