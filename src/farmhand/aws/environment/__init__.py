"""One environment on AWS: its stacks and image, what runs in it, and what that has cost."""
