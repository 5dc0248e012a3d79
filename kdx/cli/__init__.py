"""The commands: one file per command, and the callbacks of a sweep. torch is imported only when a job starts."""
