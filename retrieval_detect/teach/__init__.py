"""What changes an index: building, adding, removing, fitting; and what a change would do."""
