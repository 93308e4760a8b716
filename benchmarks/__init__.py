"""Measurements beside what users would use instead. No figure stands in the docs that these did not print."""
