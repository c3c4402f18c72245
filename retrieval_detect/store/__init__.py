"""Vectors on disk: the embedding store, its generations, and everything that must survive kill -9."""
