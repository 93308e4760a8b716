"""The base package: tasks, errors, money, prices, keys, key sources, settings and files. It imports no other part."""
