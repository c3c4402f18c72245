"""The command line: parses, calls the package, prints. Nothing else does any of the three."""
