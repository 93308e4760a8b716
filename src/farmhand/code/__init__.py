"""The workstation's side of a repository task: one commit goes out as a bundle, a checked patch comes back."""
