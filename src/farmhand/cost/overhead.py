"""What the usual wrapper, plain `claude -p`, sends with every prompt, beside what Farmhand's own engine sends.

Measured with Claude Code CLI 2.1.330 and a fresh home against the loopback Messages API: its request body for a prompt
of five bytes has 51.8 KB, where the leanest that the CLI can send has 1.1 KB and Farmhand's own engine sends less. A
home with instructions, skills and tool servers of its own sends more: 76 to 115 KB were measured with 2.1.197. The
least is taken, and few tokens to the byte, so that the saving is not made larger than it is.
`make bench` measures both again (benchmarks/cost.py), and says so where the constants claim more than is there.
"""

from __future__ import annotations

from farmhand.core.engines import ENGINES

PLAIN_BYTES = 51_000
LEAN_BYTES = 1_100
#: Bytes of English text and JSON to a token: 3.1 on the newer models, 4 on the older; the higher gives fewer tokens.
BYTES_PER_TOKEN = 4
#: Tokens that a request of plain `claude -p` has above one of Farmhand's.
OVERHEAD_TOKENS = (PLAIN_BYTES - LEAN_BYTES) // BYTES_PER_TOKEN
#: The engines whose requests are lean; what a task of the engine `cli` sends depends on its tools, and nothing is
#: claimed for it.
LEAN_ENGINES = frozenset(name for name, kind in ENGINES.items() if kind.lean)
