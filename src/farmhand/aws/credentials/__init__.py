"""Credentials on their way to AWS, where they are kept there, and when they end."""
