"""Stages, their store and the pipeline."""
