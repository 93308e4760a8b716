"""The ledger: the durable record of tasks, attempts, usage and cost."""
