"""One path from a block of vectors to verdicts with their evidence; it never changes an index."""
