"""Verdicts as pages: one self-contained file for whoever looks before reading."""
