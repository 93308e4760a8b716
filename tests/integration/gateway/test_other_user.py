"""Another user's process beside a running gateway; of a developer who is not root, another process of the same user."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

from tests.support import stranger
from tests.support.gateway import GatewayProcess


async def test_another_users_process_reads_nothing_and_gets_no_answer() -> None:
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        home = Path(name)
        async with GatewayProcess(home) as gateway:
            await gateway.start()
            state = gateway.token_path.parent
            open_to_all = state / "open"
            open_to_all.write_text("x")
            program = home / "stranger.py"
            program.write_bytes(Path(stranger.__file__).read_bytes())
            # Nothing but the files' own modes is in the way.
            for path in (home, *home.rglob("*")):
                if path.is_dir() or path in (open_to_all, program):
                    path.chmod(0o755)
            secret = [gateway.token_path, gateway.config, *state.glob("gateway.db*")] if root else []
            process = await asyncio.create_subprocess_exec(
                *("/usr/bin/python3", "-I", str(program), str(gateway.port), str(gateway.pid)),
                *map(str, [open_to_all, *secret]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                env={},
                cwd="/",
                user="nobody" if root else None,
                extra_groups=[] if root else None,
            )
            assert process.stdout is not None
            found = json.loads(await process.stdout.read())
            assert await process.wait() == 0
            assert len(secret) >= (3 if root else 0)
            assert found == {"read": [str(open_to_all)], "turns": [401, 401, 401]}
            assert (await gateway.status())["turns"] == []
