"""gateway.toml: what is accepted, and the one line that names file, table and key for what is not."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

from farmhand.core.errors import FarmhandError, NotConfigured, Refused
from farmhand.gateway.config import GatewayConfig, default_path, load, parse
from farmhand.gateway.policy import Rule

WHOLE = """
listen = "[::1]:7399"
token_file = "~/token"
advice = "message"
log_prompts = false

[local.qwen]
url = "http://127.0.0.1:8080"
model = "qwen3-coder"
extra_body = { chat_template_kwargs = { enable_thinking = false } }
slots = 2
[local.ollama]
url = "http://localhost:11434"
dialect = "messages"
context = 32768
images = "yes"
auth_env = "OLLAMA_KEY"
mid_system = "system"
omit_hosted_tools = true

[subscription]
enabled = false
terms_read = "2026-11-28"

[metered]
enabled = false
budget_day_usd = "2"

[aliases]
qwen = { backend = "local:qwen" }
plan = { class = "review", backend = "local:ollama" }

[[rule]]
class = "planning"
try = ["local:ollama", "local"]
[[rule]]
class = ["agent", "chat"]
tokens_over = 60000
try = []
[[rule]]
try = ["local"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(WHOLE)
    path.chmod(0o600)
    return path


def test_a_missing_file_is_the_shipped_default(tmp_path: Path) -> None:
    config = load(tmp_path / "gateway.toml")
    assert config == parse("")
    assert config.rules == (Rule(order=("local",)),)
    assert not config.local
    assert not config.subscription.enabled
    assert not config.metered.enabled
    assert sorted(config.aliases) == ["agent", "chat", "plan", "quick", "review"]
    assert [(state.name, state.closed.words) for state in config.closed() if state.closed] == [
        ("subscription", "off"),
        ("metered", "off"),
    ]


def test_a_whole_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = load(file)
    assert config.address == ("::1", 7399)
    assert config.token_path == Path("/home/me/token")
    assert list(config.local) == ["qwen", "ollama"]
    assert config.local["qwen"].extra_body == {"chat_template_kwargs": {"enable_thinking": False}}
    assert config.local["ollama"].omit_hosted_tools
    assert config.aliases["plan"].work_class == "review"
    assert config.aliases["agent"].work_class == "agent"
    assert config.rules[0] == Rule(classes=("planning",), order=("local:ollama", "local"))
    assert config.rules[1].tokens_over == 60000
    assert (config.metered.day_pico, config.metered.turn_pico) == (2 * 10**12, 10**12 // 2)


def test_the_usual_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_path({"HOME": "/home/me"}) == Path("/home/me/.config/farmhand/gateway.toml")
    assert GatewayConfig().token_path == Path("/state/farmhand/gateway.token")


LOCAL = '[local.a]\nurl = "http://127.0.0.1:1"\n'
METERED = '[metered]\nbudget_day_usd = "2"\n'


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("x = ", 3, "not TOML"),
        ("x = 1", 3, "gateway.toml: x: unknown key (known: "),
        ("[locals]", 3, "gateway.toml: locals: unknown key"),
        ("listen = 7345", 3, "gateway.toml: listen: expected `str`, got `int`"),
        ('listen = "0.0.0.0:7345"', 5, "listen: 0.0.0.0 is not a loopback address"),
        ('listen = "farm.example:7345"', 5, "listen: farm.example is not a loopback address"),
        ('listen = "localhost.evil:7345"', 5, "localhost.evil is not a loopback"),
        ('listen = "127.9.9.9:7345"', 3, "127.9.9.9 is no Host that is answered (only 127.0.0.1, localhost and"),
        ('listen = "[0:0:0:0:0:0:0:1]:7345"', 3, "is no Host that is answered"),
        ('listen = "localhost:1"\n[local.a]\nurl = "http://127.0.0.1:1"', 3, "[local.a] url: is the gateway itself"),
        ('listen = "127.0.0.1"', 3, "listen: '127.0.0.1' is not HOST:PORT"),
        ('listen = "127.0.0.1:70000"', 3, "is not HOST:PORT"),
        ('advice = "silent"', 3, "advice: invalid enum value 'silent' (one of error, message)"),
        ("log_prompts = true", 5, "log_prompts: prompts are never logged"),
        ('token_file = "here"', 3, "token_file: not an absolute path"),
        ("local = 1", 3, "local: is a number, not a table"),
        ("[local.a]", 3, "gateway.toml: [local.a] url: missing"),
        ('[local.a]\nurl = "http://127.0.0.1:7345"', 3, "[local.a] url: is the gateway itself"),
        ('[local.a]\nurl = "http://localhost:7345/x"', 3, "[local.a] url: is the gateway itself"),
        ("[local]\na = 1", 3, "gateway.toml: [local.a]: is a number, not a table"),
        ('[local."a b"]\nurl = "http://127.0.0.1"', 3, "[local] 'a b': not a name"),
        (LOCAL + "slot = 2", 3, "[local.a] slot: unknown key"),
        ('[[rule]]\nclass = "x"\ntry = []', 3, "class[0]: invalid enum value 'x' (one of planning, review, chat,"),
        ('[aliases]\na = { class = "x" }', 3, "invalid enum value 'x' (one of planning,"),
        (LOCAL + "slots = 0", 3, "[local.a] slots: expected `int` >= 1"),
        (LOCAL + 'dialect = "responses"', 3, "dialect: invalid enum value 'responses' (one of chat, messages)"),
        (LOCAL + 'extra_body = { model = "x", tools = [] }', 3, "[local.a] extra_body: may not set model, tools"),
        (LOCAL + "extra_body = { since = 2026-01-01 }", 3, "extra_body: has a value that JSON has not"),
        (LOCAL + "extra_body = { a = [nan] }", 3, "extra_body: has a value that JSON has not"),
        (LOCAL + 'auth_env = "A B"', 3, "auth_env: not the name of a variable"),
        (LOCAL + 'model = "gpt-oss:120b-cloud"', 5, "model: gpt-oss:120b-cloud runs on its maker's servers"),
        ('[local.a]\nurl = "http://192.168.1.100:11434"', 5, "[local.a] url: 192.168.1.100 is not this machine"),
        ('[local.a]\nurl = "https://api.example.com"', 5, "api.example.com is not this machine"),
        ('[local.a]\nurl = "http://127.0.0.1.example.com"', 5, "is not this machine"),
        ('[local.a]\nurl = "http://me:pw@127.0.0.1:1"', 3, "[local.a] url: not an http(s) URL without user"),
        ('[local.a]\nurl = "http://127.0.0.1:8080/v1"', 3, "url: must end before /v1"),
        ('[local.a]\nurl = "http://127.0.0.1:99999"', 3, "url: not an http(s) URL"),
        ("[subscription]\nenabled = true", 5, "[subscription] terms_read: missing"),
        ('[subscription]\nterms_read = "soon"', 3, "terms_read: not a date"),
        ("[subscription]\nterms_read = 2999-01-01", 3, "terms_read: 2999-01-01 is not yet"),
        ('[subscription]\nauth_env = "sk-ant-oat01-test-test-test-test"', 3, "auth_env: not the name of a variable"),
        ('[subscription]\ncli = "claude --bare"', 3, "cli: neither a program's name nor its absolute path"),
        ('[subscription]\ncli = "--bare"', 3, "cli: neither"),
        ('[subscription]\nmodels = { agent = "opus" }', 3, "models.agent: not a class of this table"),
        ("[subscription]\nreserve = 1.5", 3, "[subscription] reserve: expected `float` <= 1.0"),
        ("[metered]\nenabled = true", 3, "[metered] budget_day_usd: missing: nothing is paid for without a limit"),
        ("[metered]\nbudget_day_usd = 2.5", 3, "[metered] budget_day_usd: expected `str`, got `float`"),
        ('[metered]\nbudget_day_usd = "0"', 3, "budget_day_usd: '0' is not an amount"),
        ('[metered]\nbudget_day_usd = "inf"', 3, "'inf' is not an amount"),
        ('[metered]\nbudget_day_usd = "1e-13"', 3, "'1e-13' is not an amount"),
        (METERED + 'max_usd_per_turn = ""', 3, "max_usd_per_turn: empty"),
        (METERED + 'key_source = "env:K"\nauth_env = "K"', 3, "key_source: auth_env is set too"),
        (METERED + 'key_source = "~/repos.env"', 3, "key_source: not a key source"),
        (METERED + 'models = { agent = "" }', 3, "models.agent: not the name of a model"),
        ("[aliases]\nx = {}", 3, "[aliases] x: names neither a class nor a backend"),
        ('[aliases]\nx = { class = "thinking" }', 3, "[aliases] x class: invalid enum value 'thinking'"),
        ('[aliases]\nx = { backend = "local:b" }', 3, "[aliases] x backend: names 'local:b', which is no backend"),
        ('[aliases]\nx = { backend = "local" }', 3, "names 'local', which is no backend"),
        ('[rule]\ntry = ["local"]', 3, "rule: is a table, not a list of tables (write [[rule]])"),
        ('[[rules]]\ntry = ["local"]', 3, "gateway.toml: rules: unknown key (known: "),
        ('[aliases]\n"A b" = 1', 3, "gateway.toml: [aliases] 'A b': not a name of"),
        ("[aliases]\na = 1", 3, "gateway.toml: [aliases] a: is a number, not a table"),
        ("subscription = 1", 3, "gateway.toml: [subscription]: is a number, not a table"),
        ("[[rule]]", 3, "[[rule]] 1 try: missing"),
        ('[[rule]]\ntry = "local"', 3, "[[rule]] 1 try: expected `array`, got `str`"),
        ('[[rule]]\ntry = []\n[[rule]]\ntry = ["ollama"]', 3, "[[rule]] 2 try: names 'ollama', which is no backend"),
        ('[[rule]]\ntry = ["metered"]', 3, "try: names metered, but it is not enabled"),
        ('[metered]\nurl = "http://api.example.com"', 3, "[metered] url: not an https URL"),
        ('[metered]\nurl = "https://[::1"', 3, "[metered] url: not an https URL"),
        ('[metered]\nurl = "https://api.example.com:99999"', 3, "[metered] url: not an https URL"),
        ('[metered]\nurl = "https://me:pw@api.example.com"', 3, "[metered] url: not an https URL"),
        ('[metered]\nurl = "https://api.example.com#x"', 3, "[metered] url: not an https URL"),
        ('[[rule]]\nclass = []\ntry = []', 3, "[[rule]] 1 class: is empty"),
        ('[[rule]]\nclass = "background"\ntry = []', 3, "[[rule]] 1 class[0]: invalid enum value 'background'"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_with_file_table_and_key(text: str, code: int, said: str) -> None:
    with pytest.raises(FarmhandError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert caught.value.exit_code == code
    assert type(caught.value) is (NotConfigured if code == 3 else Refused)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("gateway.toml: ")


def test_a_key_in_the_place_of_a_name_is_not_repeated() -> None:
    key = "sk-ant-test-0123456789abcdef"
    for line in ('auth_env = "{}"', 'url = "{}"', 'model = "{}:cloud"', "{} = 1", 'x = "{}', 'dialect = "{}"'):
        text = f"[local.b]\n{'' if line.startswith('url') else LOCAL.partition(chr(10))[2]}{line.format(key)}"
        with pytest.raises(FarmhandError) as caught:
            parse(text)
        assert key not in str(caught.value)


def test_money_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    metered = parse('[metered]\nbudget_day_usd = "0.1"\nmax_usd_per_turn = "0.000000000001"').metered
    assert (metered.day_pico, metered.turn_pico) == (int(Decimal("0.1") * 10**12), 1)


def test_only_its_owner_may_have_the_file(file: Path) -> None:
    for mode in (0o640, 0o604, 0o620, 0o700):
        file.chmod(mode)
        with pytest.raises(NotConfigured, match=rf"mode {mode:04o} lets others at it .*chmod 600"):
            load(file)
    file.chmod(0o400)
    assert load(file).advice == "message"


def test_the_file_of_another_user_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(NotConfigured, match=r"belongs to user \d+, not to you"):
        load(file)


def test_what_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(NotConfigured, match="not a file"):
        load(pipe)
    with pytest.raises(NotConfigured, match="not a file"):
        load(tmp_path)
    with pytest.raises(NotConfigured, match="cannot be read: Not a directory"):
        load(pipe / "gateway.toml")
    large = tmp_path / "large"
    large.touch(0o600)
    os.truncate(large, 2 * 1024 * 1024)
    with pytest.raises(NotConfigured, match="larger than"):
        load(large)


@pytest.mark.parametrize(
    "content", [b"x = '\xff'", b"'\xff' = 1", b"a = " + b"[" * 100_000, b"\0", b"x = " + b"9" * 5000]
)
def test_no_content_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(NotConfigured, match=r"gateway\.toml: "):
        load(path)
