"""Judgments to a better model."""
