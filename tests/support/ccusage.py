"""The real ccusage, from npm, in the version that is pinned here and checked against its digest."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.node import node, unpacked

#: The last version that is plain JavaScript; later ones are a program per platform.
VERSION = "18.0.11"
DIGEST = "sha512-QIFCY2gh06vjWelND1gDwJxrniAcNkPw0OHUhz985iE7FIEf738YVzxUKQMKhA2fO9CIJCz0dSpnyIufaKdjdA=="
#: What it needs; Debian 12 has an older one.
NODE = (20, 19, 4)


def daily(config_dir: Path, home: Path) -> dict[str, Any]:
    """`ccusage daily` of the logs below `config_dir`, by its own prices, which it brings along; days are UTC."""
    options = ["daily", "--json", "--offline", "--breakdown", "--mode", "calculate", "--timezone", "UTC"]
    done = subprocess.run(
        [str(node(NODE)), str(_script()), *options],
        env={"HOME": str(home), "CLAUDE_CONFIG_DIR": str(config_dir), "PATH": "/usr/bin:/bin", "LOG_LEVEL": "0"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@cache
def _script() -> Path:
    return unpacked("ccusage", VERSION, DIGEST) / "package" / "dist" / "index.js"
