"""What a run leaves behind: its folder, and where its numbers come from."""
