"""JSON Schemas of tasks, and whether answers meet them: checked in processes of their own that can be ended.

A pattern, or a keyword that compares everything with everything, can take for ever, and nothing inside a Python process
ends it. `worker.py` is what those processes run; it imports nothing of the rest, and never has a key in its memory.
"""

from farmhand.core.schemas.pool import MAX_ANSWER, POOL, CheckResult, Pool, Unchecked, problem, too_large

__all__ = ["MAX_ANSWER", "POOL", "CheckResult", "Pool", "Unchecked", "problem", "too_large"]
