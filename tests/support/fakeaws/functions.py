"""Functions of Lambda, run as processes of this machine: their own code, the role's credentials, this double as AWS."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

from moto.awslambda.models import LambdaFunction

from tests.support.fakeaws.options import OPTIONS, api

#: Prints the answer on the last line; what the function prints comes before it.
_RUNNER = """
import importlib, json, sys, types
sys.path.insert(0, sys.argv[1])
module, _, name = sys.argv[2].rpartition(".")
context = types.SimpleNamespace(function_name=sys.argv[3], invoked_function_arn=sys.argv[4], aws_request_id="fake",
                                memory_limit_in_mb="128", get_remaining_time_in_millis=lambda: 60000)
try:
    answer = (0, getattr(importlib.import_module(module), name)(json.load(sys.stdin), context))
except BaseException as error:
    import traceback
    traceback.print_exc()
    answer = (1, {"errorMessage": str(error), "errorType": type(error).__name__})
print("\\n" + json.dumps(answer))
"""


def change() -> None:
    """Change moto."""
    LambdaFunction._invoke_lambda = _invoke


def _invoke(self: Any, event: Any = None) -> tuple[str, bool, str]:
    """moto's result: the answer as JSON, whether it failed, the log."""
    text = event.decode() if isinstance(event, bytes) else event if isinstance(event, str) else json.dumps(event or {})
    self.logs_backend.ensure_log_group(self.logs_group_name)
    with tempfile.TemporaryDirectory() as directory:
        zipfile.ZipFile(io.BytesIO(self.code_bytes)).extractall(directory)
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _RUNNER, directory, self.handler, self.function_name, self.function_arn],
                input=text or "{}",
                env=_environment(self),
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=float(self.timeout),
                check=False,
            )
        except subprocess.TimeoutExpired:
            said = {"errorType": "Sandbox.Timedout", "errorMessage": f"Task timed out after {self.timeout}.00 seconds"}
            return json.dumps(said), True, said["errorMessage"]
    *printed, last = done.stdout.rstrip("\n").split("\n")
    log = "\n".join([*printed, done.stderr]).strip()
    self.save_logs(log)
    try:
        failed, answer = json.loads(last)
    except ValueError:
        return json.dumps({"errorType": "Runtime.ExitError", "errorMessage": last or done.stderr}), True, log
    return json.dumps(answer), bool(failed), log


def _environment(function: Any) -> dict[str, str]:
    made = api("sts").assume_role(RoleArn=function.role, RoleSessionName=function.function_name)["Credentials"]
    return {
        "PATH": os.environ.get("PATH", ""),
        **{key: str(value) for key, value in (function.environment_vars or {}).items()},
        "AWS_ENDPOINT_URL": OPTIONS.url,
        "AWS_REGION": OPTIONS.region,
        "AWS_DEFAULT_REGION": OPTIONS.region,
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
        "AWS_LAMBDA_FUNCTION_NAME": str(function.function_name),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
    }
