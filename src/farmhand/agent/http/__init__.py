"""The agent's socket: the wire and the metrics."""
