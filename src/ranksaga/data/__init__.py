"""Datasets: the inside form, the BEIR layout, names, downloads, builders, splits and leakage."""
