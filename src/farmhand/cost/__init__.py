"""What a task costs."""
