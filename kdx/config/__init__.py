"""The config of a run: its schema, the checks that need no torch, baselines, and a finished run as a teacher."""
