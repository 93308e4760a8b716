"""What the usual wrapper, plain `claude -p`, sends with every prompt, beside what Farmhand's own engine sends.

Measured with Claude Code CLI 2.1.197 against the loopback Messages API: its request bodies for a one-line prompt have
76 to 115 KB with its 24 tools (what the home directory adds makes the difference), Farmhand's 1.1 KB. The low end is
taken, and few tokens to the byte, so that the saving is not made larger than it is. `make bench` measures both again
(benchmarks/cost.py) and fails where the constants claim more than is there.
"""

from __future__ import annotations

PLAIN_BYTES = 76_000
LEAN_BYTES = 1_100
#: Bytes of English text and JSON to a token: 3.1 on the newer models, 4 on the older; the higher gives fewer tokens.
BYTES_PER_TOKEN = 4
#: Tokens that a request of plain `claude -p` has above one of Farmhand's.
OVERHEAD_TOKENS = (PLAIN_BYTES - LEAN_BYTES) // BYTES_PER_TOKEN
#: The engines whose requests are lean; what a task of the engine `cli` sends depends on its tools, and nothing is
#: claimed for it.
LEAN_ENGINES = frozenset({"api", "economy"})
