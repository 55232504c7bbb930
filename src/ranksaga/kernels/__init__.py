"""Compiled code: what torch does slowly on a CPU."""
