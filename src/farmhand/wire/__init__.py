"""The wire protocol between a client and an agent: its schema, its only client, and the transports."""
