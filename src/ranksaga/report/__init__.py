"""Comparisons to tables, charts and pages."""
