"""What the agent serves on its socket."""
