from __future__ import annotations

import subprocess
import sys

RACE = """
import sys, threading
sys.setswitchinterval(1e-6)
from farmhand.wire import schema
from farmhand.wire.decode import Misfit, decode
start = threading.Barrier(8)
def decode():
    start.wait()
    for kind in (schema.StatusAnswer, schema.TurnAnswer, schema.TasksAnswer, schema.ResultsAnswer):
        try:
            decode(b'{"version": "1", "wire": 1, "results": [], "tasks": []}', kind)
        except Misfit:
            pass
threads = [threading.Thread(target=decode) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_threads_that_decode_a_type_for_the_first_time_do_not_crash() -> None:
    """Without `ready` one of three such processes ends with a segmentation fault."""
    for _ in range(12):
        assert subprocess.run([sys.executable, "-c", RACE], check=False).returncode == 0
