"""Teachers: frozen networks and ensembles, their calibration, and the store of trained teachers."""
