"""Spans of tasks and of requests, sent to a collector of the operator's. Off by default."""
