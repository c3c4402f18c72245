"""What is wrong or unknown in an index: it looks and changes nothing."""
