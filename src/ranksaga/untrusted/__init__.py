"""What comes from outside, read with bounds, and written so that it stays text. SECURITY.md says against what."""
