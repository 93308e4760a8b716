"""Rotation without hosts and without an API: what is remembered, what is written, and crashes anywhere."""
