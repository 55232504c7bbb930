"""Two measurements to a verdict."""
