"""The commands: one file per command, and what a sweep adds. Hydra is started here; torch only when a job starts."""
