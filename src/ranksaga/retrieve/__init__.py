"""Vectors and words to rankings."""
