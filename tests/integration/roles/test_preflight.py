"""What the roles' preflights say about a wrong variable, and that a preflight has no task that could change anything.

All cases run in one playbook against this machine: the preflights look at variables and files of the controller only.
What `preflight` asks of a host is tried on the farm host: tests/e2e/test_site_variables.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.forked_modules import FORKED

ROOT = Path(__file__).resolve().parents[3]
SECRET = "sk-ant-test-inventory-000000000000"
BAKED = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/farmhand-worker-baked@sha256:{'0' * 64}"
ON = {"jada_agent_cloudwatch": True, "jada_agent_cloudwatch_region": "us-east-1"}
#: role, variables, what the one line says: the variable, what is wrong with it, what to do.
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("preflight", {"company_key": [{"deep": SECRET}]}, ["company_key", "an API key or a login token", "Remove it"]),
    ("preflight", {"preflight_max_clock_skew": "soon"}, ["preflight_max_clock_skew is 'soon'", "90s or 5m"]),
    ("base", {"base_config_dir": "here"}, ["base_config_dir", "'here'", "give an absolute path"]),
    ("base", {"base_dispatch_key": "id"}, ["base_dispatch_key is 'id'", "give an absolute path"]),
    ("base", {"base_scrub_backup_dir": "b"}, ["base_scrub_backup_dir is 'b'", "give an absolute path"]),
    ("base", {"base_port": 70000}, ["base_port is '70000'", "1 to 65535"]),
    ("base", {"base_extra_dispatch_keys": ['command="x" ssh-ed25519 AAAA']}, ["base_extra_dispatch_keys", ".pub"]),
    ("base", {"base_ca_certificates": ["/nowhere/ca.crt"]}, ["base_ca_certificates: '/nowhere/ca.crt'", "Correct"]),
    ("base", {"base_ca_certificates_dir": "/nowhere"}, ["base_ca_certificates_dir is '/nowhere'", "leave it empty"]),
    ("claude_cli", {"claude_cli_version": "1.0.0"}, ["claude_cli_version is '1.0.0'", "2.1.330", "extra_digests"]),
    (
        "claude_cli",
        {
            "claude_cli_version": "9.9.9",
            "claude_cli_extra_digests": {"9.9.9": {"x86_64": {"tarball": "x", "binary": "y"}}},
        },
        ["claude_cli_extra_digests: 9.9.9, x86_64", "sha256sum"],
    ),
    ("claude_cli", {"claude_cli_keep": 0}, ["claude_cli_keep is 0", "give 1 or more"]),
    (
        "claude_cli",
        {"claude_cli_managed_settings": {"env": {}}},
        ["claude_cli_managed_settings", 'DISABLE_AUTOUPDATER: "1"'],
    ),
    ("jada_agent", {"jada_agent_upstream_url": "http://api.example.com"}, ["jada_agent_upstream_url", "plain http"]),
    ("jada_agent", {"jada_agent_upstream_url": f"https://{SECRET}@x"}, ["jada_agent_upstream_url", "no user name"]),
    (
        "jada_agent",
        {"jada_agent_upstream_url": "https://api.example.com"},
        ["jada_agent_upstream_ranges is empty", "CIDR"],
    ),
    ("jada_agent", {"jada_agent_otel_endpoint": f"http://{SECRET}@h"}, ["jada_agent_otel_endpoint is 'http", "4318"]),
    (
        "jada_agent",
        {"jada_agent_otel_endpoint": "http://collector.example.com:4318"},
        ["jada_agent_otel_ranges is empty", "CIDR"],
    ),
    ("jada_agent", {"jada_agent_drain": "soon"}, ["jada_agent_drain is 'soon'", "90s or 1h"]),
    ("jada_agent", {"jada_agent_idle": "0"}, ["jada_agent_idle is '0'", "above 0"]),
    ("jada_agent", {"jada_agent_watchdog": "-1s"}, ["jada_agent_watchdog is '-1s'", "90s or 1h"]),
    ("jada_agent", {"jada_agent_task_timeout_max": "1 week"}, ["jada_agent_task_timeout_max is '1 week'", "90s or 1h"]),
    ("jada_agent", {"jada_agent_memory_max": "half"}, ["jada_agent_memory_max is 'half'", "512M or 1G"]),
    ("jada_agent", {"jada_agent_task_memory_max": "100M"}, ["jada_agent_task_memory_max is 100M", "400M or more"]),
    ("jada_agent", {"jada_agent_slots_cli": 0}, ["jada_agent_slots_cli is 0", "give 1 to 1024"]),
    ("jada_agent", {"jada_agent_attempts": 21}, ["jada_agent_attempts is 21", "give 1 to 20"]),
    ("jada_agent", {"jada_agent_task_cpu_quota": "two"}, ["jada_agent_task_cpu_quota is 'two'", "200%"]),
    ("jada_agent", ON | {"jada_agent_cloudwatch_region": ""}, ["jada_agent_cloudwatch_region is ''", "us-east-1"]),
    ("jada_agent", ON | {"jada_agent_cloudwatch_environment": "P"}, ["jada_agent_cloudwatch_environment is 'P'", "20"]),
    ("jada_agent", ON | {"jada_agent_cloudwatch_host": "a b"}, ["jada_agent_cloudwatch_host is 'a b'", "63 letters"]),
    (
        "jada_agent",
        ON | {"jada_agent_cloudwatch_endpoint_url": "x"},
        ["cloudwatch_endpoint_url", "leave it"],
    ),
    (
        "jada_agent",
        ON | {"jada_agent_cloudwatch_key_file": "/etc/hostname"},
        ["key_file is", "chmod 600"],
    ),
    ("jada_agent", {"jada_agent_source": "/nowhere"}, ["jada_agent_source is '/nowhere'", "Give the path"]),
    ("workstation", {"farmhand_state": "gone"}, ["farmhand_state is 'gone'", "present or absent"]),
    ("workstation", {"workstation_key": SECRET}, ["workstation_key is not a fingerprint", "never the key itself"]),
    ("workstation", {"workstation_key_file": "repos.env"}, ["workstation_key_file is 'repos.env'", "absolute path"]),
    ("workstation", {"workstation_credential_timer": True}, ["workstation_aws_enabled is not", "set both"]),
    ("workstation", {"workstation_source": "/nowhere"}, ["workstation_source is '/nowhere'", "Give the path"]),
    ("aws", {"aws_environment": "Prod"}, ["aws_environment", "lower-case letters"]),
    ("aws", {"aws_environment": "prod-data"}, ["aws_environment", "-data, -watch or -network"]),
    ("aws", {"aws_account": "12"}, ["aws_account", "12 digits, in quotes"]),
    ("aws", {"aws_image": "farmhand-worker:latest"}, ["aws_image", "REPOSITORY@sha256:"]),
    ("aws", {"aws_email": "me"}, ["aws_email", "an e-mail address"]),
    ("aws", {"aws_credential_kind": "git"}, ["aws_credential_kind", "setup-token, login or none"]),
    ("aws", {"aws_api_ranges": ["160.79.104.0/23"]}, ["aws_api_ranges", "one range of IPv6"]),
    ("aws", {"aws_zones": ["us-east-1a"]}, ["aws_zones", "two availability zones"]),
    ("aws", {"aws_farm_hosts": ["a b"]}, ["aws_farm_hosts", "63 letters"]),
    ("aws", {"aws_farm_hosts": ["a.b", "a-b"]}, ["aws_farm_hosts", "each once"]),
    ("aws", {"aws_zones": ["us-east-1a", "us-east-1a"]}, ["aws_zones", "two availability zones"]),
    ("aws", {"aws_max_vcpus": 0}, ["aws_max_vcpus", "at least 1"]),
    ("aws", {"aws_log_days": 31}, ["aws_log_days", "that CloudWatch knows"]),
    ("aws", {"aws_operators": ["me"]}, ["aws_operators", "ARNs"]),
    ("aws", {"aws_cost_per_day_usd": -1}, ["the limits", "0 or more"]),
    ("aws", {"aws_cost_per_day_usd": float("nan")}, ["the limits", "0 or more"]),
    ("aws", {"aws_monthly_budget_usd": float("inf")}, ["the limits", "0 or more"]),
    ("aws", {"aws_errors_per_hour": -1}, ["the limits", "0 or more"]),
    ("aws", {"aws_rate_limited_percent": 0}, ["aws_rate_limited_percent", "from 1 to 99"]),
    ("aws", {"aws_rate_limited_percent": 100}, ["aws_rate_limited_percent", "from 1 to 99"]),
    ("aws", {"aws_ipv4": True, "aws_network": "public"}, ["aws_ipv4", "has IPv4 already"]),
    (
        "aws",
        {"aws_baked_image": True, "aws_network": "public"},
        ["aws_baked_image: false, unless aws_network is private"],
    ),
    ("aws", {"aws_baked_image_uri": BAKED}, ["aws_baked_image_uri: the name of the image by its digest", "only with"]),
]
#: Modules that only look. `command` is among them where the task says so itself.
READS = {
    "assert",
    "setup",
    "stat",
    "validate_argument_spec",
    "set_fact",
    "import_tasks",
    "include_tasks",
    "include_role",
    "farmhand_route",
    "amazon.aws.aws_caller_info",
}
COLLECTIONS = ("ansible.", "amazon.", "community.", "farmhand_")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """How each case failed, {} where the preflight let it pass. Each case is a host with the case's variables."""
    directory = tmp_path_factory.mktemp("preflight")
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {
        f"case{number}": {
            **local,
            "role": role,
            "file": "inventory.yml" if role == "preflight" else "preflight.yml",
            **given,
        }
        for number, (role, given, _) in enumerate(CASES)
    }
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    check: dict[str, Any] = {
        "block": [{"include_role": {"name": "{{ role }}", "tasks_from": "{{ file }}"}}],
        "rescue": [{"set_fact": {"said": "{{ ansible_failed_result }}"}}],
    }
    said = "{{ ansible_play_hosts_all | map('extract', hostvars) | map(attribute='said', default={}) | to_json }}"
    answer = {"copy": {"content": said, "dest": str(directory / "said.json"), "mode": "0600"}, "run_once": True}
    play = [{"hosts": "all", "gather_facts": False, "tasks": [check, answer]}]
    (directory / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    argv = [program, "-i", str(directory / "hosts.json"), "--forks", "4", str(directory / "play.yml")]
    environment = {**os.environ, **FORKED, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    answers: list[dict[str, Any]] = json.loads((directory / "said.json").read_text(encoding="utf-8"))
    assert len(answers) == len(CASES)
    return answers


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{role}-{'-'.join(given)}" for role, given, _ in CASES])
def test_a_wrong_variable_is_one_line_with_its_name_the_rule_and_the_fix(
    said: list[dict[str, Any]], number: int
) -> None:
    failed = said[number]
    assert failed, "the preflight let it pass"
    message = next((item["msg"] for item in failed.get("results", []) if item.get("failed")), failed["msg"])
    assert "\n" not in message.strip()
    for words in CASES[number][2]:
        assert words in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("roles/preflight/tasks/*.yml"), *ROOT.glob("roles/*/tasks/preflight.yml")]),
    ids=lambda path: f"{path.parts[-3]}/{path.name}",
)
def test_a_preflight_has_no_task_that_changes_anything(path: Path) -> None:
    for task in yaml.safe_load(path.read_text(encoding="utf-8")):
        modules = {name.removeprefix("ansible.builtin.") for name in task if name.startswith(COLLECTIONS)}
        assert len(modules) == 1, task
        if modules == {"command"}:
            assert task["changed_when"] is False
            assert task["check_mode"] is False
        else:
            assert modules <= READS, task["name"]
