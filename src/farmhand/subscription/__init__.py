"""The operator's own, unmodified `claude -p` on their own plan: what the fallback and the gateway have in common."""
