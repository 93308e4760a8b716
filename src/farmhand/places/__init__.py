"""The places where tasks run, and how a batch reaches them."""
