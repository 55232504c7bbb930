"""Rankings to per-query values."""
