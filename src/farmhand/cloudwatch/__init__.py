"""What pushes a farm host's figures to CloudWatch, as a unit of its own that reads the agent's socket."""
