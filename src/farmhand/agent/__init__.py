"""jada-agent, the daemon on a farm host: server, scheduler, ledger and engines."""
