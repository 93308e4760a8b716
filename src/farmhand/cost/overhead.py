"""The prompt overhead of plain `claude -p`, the usual wrapper, compared with Farmhand's own engine.

Measured with Claude Code CLI 2.1.330 and a fresh home: for a prompt of five bytes its request body has 51.8 KB (with
instructions, skills and tool servers of one's own 76 to 115 KB), its leanest 1.1 KB. The constants take the smallest
overhead and few tokens per byte, so that the saving is not overstated. `make bench` (benchmarks/cost.py) checks them.
"""

from __future__ import annotations

from farmhand.core.engines import ENGINES

PLAIN_BYTES = 51_000
LEAN_BYTES = 1_100
#: Bytes of English text and JSON per token: 3.1 on newer models, 4 on older ones. The higher value gives fewer tokens.
BYTES_PER_TOKEN = 4
#: Extra tokens in a request of plain `claude -p`, compared with one of Farmhand's.
OVERHEAD_TOKENS = (PLAIN_BYTES - LEAN_BYTES) // BYTES_PER_TOKEN
#: Engines with lean requests. What the engine `cli` sends depends on the task's tools, so no saving is claimed for it.
LEAN_ENGINES = frozenset(name for name, kind in ENGINES.items() if kind.lean)
