"""What a run is asked for: schema, overrides, Hydra's composition, the run's id."""
