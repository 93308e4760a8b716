"""Farmhand: one operator's easy tasks, on a cheap model, on a box of their own."""

__version__ = "0.1.0"
