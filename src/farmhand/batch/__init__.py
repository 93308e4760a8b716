"""`farmhand batch`: a file of tasks over many hosts, resumable, with results as they come."""
