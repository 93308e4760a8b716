"""The workstation's loopback endpoint for coding harnesses: local first, and it spends only what was opened."""
