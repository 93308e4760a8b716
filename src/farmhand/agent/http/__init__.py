"""The agent's HTTP interface: the API v1 and the metrics."""
