"""Rotations against real daemons and the loopback API."""
