"""What takes too long for `make test`: `make soak` runs it. It needs Docker."""
