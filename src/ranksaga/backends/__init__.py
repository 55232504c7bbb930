"""Places where a run executes."""
