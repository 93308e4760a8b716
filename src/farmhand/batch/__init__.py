"""`farmhand batch`: a file of tasks run on many hosts, resumable, with results as they arrive."""
