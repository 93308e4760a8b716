"""The cost of tasks: ledgers, figures and reports."""
