"""The wire between a client and an agent: its schema, its one client, and the transports."""
