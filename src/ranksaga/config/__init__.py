"""What a run is told: one YAML file, checked before anything else is done."""
