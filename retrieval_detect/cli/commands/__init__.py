"""One file a command; they parse, call, and hand data to the output."""
