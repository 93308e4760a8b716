"""Reaching farm hosts: which there are, the wire's errors in the package's terms, and tasks through ansible-runner."""
