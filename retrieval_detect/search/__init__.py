"""Vectors → neighbours: banks in FAISS, and the exact search that checks them."""
