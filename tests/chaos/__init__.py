"""The random-kill test: what the agent says it did, held against what the API saw, over many seeds.

`make chaos` runs 40 seeds, `make soak` 208; `pytest tests/chaos/test_random_kills.py --seed 123` runs one alone. A
seed makes a `Plan`: tasks with priorities and batches, economy tasks, faults of the API, and what happens to the
agent at which moment: SIGKILL, a full disk, a jump of the clock, cancels, clients that send the same again. `play`
acts it out with a real daemon and the loopback API, and brings back a `Story`: the API's log, the ledger, and what
was seen on the wire meanwhile. `oracle` holds these against each other: nothing lost, nothing invented, nothing run
twice on purpose, every charge accounted. `test_batch_client` does the same to `farmhand batch` and its output, over a
few seeds. `test_oracle` shows that it can fail. The plan of a seed is always the same; how its moments fall is up to
the machine.
"""
