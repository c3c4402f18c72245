"""How good a detector is, and how much of that an image set gives away by itself."""
