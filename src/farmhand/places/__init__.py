"""Where a task runs, and how a batch gets there."""
