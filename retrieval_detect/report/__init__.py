"""Verdicts as other programs and people take them: JSON (schema 1) and the words for a terminal."""
