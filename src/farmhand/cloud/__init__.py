"""What runs in the two containers of a place without systemd: the agent, on AWS its order, sandboxes and their wall."""
