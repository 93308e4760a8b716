"""The canary on AWS: while tasks run in containers and afterwards the key is where it has to be, and nowhere else.

It has to be in the secret, and so in the environment that the agent container starts with.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.aws_site import AwsSite
from tests.support.pair import bash
from tests.support.repositories import make_repository
from tests.support.sweep import CanarySweep, account, holding


def test_the_key_is_in_the_agents_first_environment_and_nowhere_else(site: AwsSite, tmp_path: Path) -> None:
    key = site.api_process.key
    origin = make_repository(tmp_path / "origin")
    # The tool says what it can see, so that a key there would be in the result as well.
    look = "sleep 2; env; cat /proc/*/environ /proc/*/cmdline; echo two >> f"
    look += "; mkdir -p .farmhand/out; env > .farmhand/out/e"
    site.api.rule("look around", bash(f"{look} 2>&1; true"), {"text": "{tool_result}"})
    rows = [{"id": "t0", "prompt": "look around", "tools": ["Bash"]}, {"id": "t1", "prompt": "hi"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    out.mkdir()
    batch = ["batch", str(tmp_path / "in.jsonl"), "--out", str(out / "out.jsonl"), "--place", "aws-batch"]
    code = ["code", str(origin), "look around", "--place", "fargate", "--out", str(out / "code")]
    with CanarySweep(site, key) as sweep:
        started = [site.start(*batch, "--batch", "canary", "--shard", "1", "--max-usd", "1"), site.start(*code)]
        said = [site.done(process) for process in started]
    assert [done.returncode for done in said] == [0, 0]
    sweep.check()
    # The log of each agent container: of the two children, and of the task.
    site.aws.until(lambda: sum(name.startswith("log ") for name in account(site, site.names)) >= 3)
    things = account(site, site.names)
    mine = [job["jobId"] for job in things["jobs"] if (job.get("tags") or {}).get("farmhand:batch") == "canary"]
    assert len([job for job in things["jobs"] if job["jobId"].startswith(mine[0])]) == 3, "the array and its children"
    assert things["tasks"]
    assert any(name.endswith("changes.patch") for name in things)
    things |= {f"said {number}": done.stdout + done.stderr for number, done in enumerate(said)}
    for directory in (out, Path(site.environ["HOME"])):
        things |= {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert holding(key, things) == []
    # What is stored is the key, and not another text that is looked for in vain.
    assert site.aws.client("secretsmanager").get_secret_value(SecretId=site.names.secret("key"))["SecretString"] == key
