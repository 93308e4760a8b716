"""The tasks that the farm hosts ran, and the workstation's copy of the last of them."""
