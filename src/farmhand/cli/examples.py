"""Examples of the verbs: what their help and their man pages show."""

from __future__ import annotations

from typing import NamedTuple


class VerbHelp(NamedTuple):
    """Examples of a verb, each a whole command line and what it does, and where more is written."""

    docs: str
    examples: tuple[tuple[str, str], ...]


#: Verb → its examples. A verb of a group has the name of both.
HELP: dict[str, VerbHelp] = {
    "farmhand": VerbHelp("README.md", (
        ("farmhand help batch", "the help of a verb"),
        ("farmhand status", "what the hosts do"),
    )),
    "run": VerbHelp("README.md", (
        ('claude-cheap "Name a tool"', "one task"),
        ("farmhand run -f report.txt --model sonnet 'Sum it up'", "with a file, on another model"),
    )),
    "code": VerbHelp("docs/aws.md", (
        ('farmhand code . "Fix the failing test" --trust --patch', "print the patch"),
        ('farmhand code https://github.com/me/shop "Add a test" --place docker --push add-test', "push a branch"),
    )),
    "doctor": VerbHelp("docs/operations.md", (
        ("farmhand doctor", "check everything"),
        ("farmhand doctor --json", "the same for a program"),
    )),
    "flush": VerbHelp("docs/operations.md", (
        ("farmhand flush", "send what was queued, show what is there"),
        ("farmhand flush --wait", "and wait until all have ended"),
    )),
    "batch": VerbHelp("docs/operations.md", (
        ("farmhand batch tasks.jsonl --out answers.jsonl", "run it, or go on with it"),
        ("farmhand batch people.csv --template 'Greet {name}.' --out letters.jsonl --economy", "half the price"),
    )),
    "status": VerbHelp("docs/operations.md", (
        ("farmhand status", "what the hosts do"),
        ("farmhand status --watch --interval 0.5", "live; q ends it"),
    )),
    "top": VerbHelp("docs/operations.md", (
        ("farmhand top", "live"),
        ("farmhand top --host farm1", "of one host"),
    )),
    "list": VerbHelp("docs/operations.md", (
        ("farmhand list --failed --since 2d", "what failed since yesterday"),
        ("farmhand list --batch letters --grep 'barn cat'", "of one batch, by words in the prompt"),
    )),
    "show": VerbHelp("docs/operations.md", (
        ("farmhand show", "the newest task"),
        ("farmhand show 7f3a", "the one whose id begins so"),
    )),
    "logs": VerbHelp("docs/operations.md", (
        ("farmhand logs 7f3a", "what it has answered so far"),
        ("farmhand logs -f", "the newest, and what comes"),
    )),
    "wait": VerbHelp("docs/operations.md", (
        ("farmhand wait 7f3a 81bc", "until both have ended"),
        ("farmhand wait 7f3a --json", "and print the result"),
    )),
    "cancel": VerbHelp("docs/operations.md", (
        ("farmhand cancel 7f3a", "whether it waits or runs"),
        ("farmhand cancel 7f3a 81bc", "both"),
    )),
    "again": VerbHelp("docs/operations.md", (
        ("farmhand again 7f3a", "the same task under a new id"),
        ("farmhand again 7f3a --model sonnet", "on another model"),
    )),
    "init": VerbHelp("docs/first-hour.md", (
        ("farmhand init", "it asks for what it needs"),
        ("farmhand init --address 203.0.113.10 --user admin --host-key SHA256:… --up", "with all that it needs"),
    )),
    "playbook": VerbHelp("docs/operations.md", (
        ("farmhand playbook verify", "check the hosts"),
        ("farmhand playbook remove --check", "what taking Farmhand off a host would do"),
    )),
    "statusline": VerbHelp("docs/operations.md", (
        ("farmhand statusline", "for a prompt"),
        ("farmhand statusline --json", "what it is made of"),
    )),
    "mcp": VerbHelp("docs/mcp.md", (
        ("farmhand mcp", "what a client starts: claude mcp add farmhand -- farmhand mcp"),
        ("farmhand mcp --plugin", "where the plugin is: claude plugin marketplace add \"$(farmhand mcp --plugin)\""),
    )),
    "cost": VerbHelp("docs/cost.md", (
        ("farmhand cost --since 30d", "what it cost and saved"),
        ("farmhand cost --by batch", "only the table"),
    )),
    "prices": VerbHelp("docs/cost.md", (
        ("farmhand prices check", "against the provider's page"),
        ("farmhand prices check pricing.html --json", "against a copy of it, for a program"),
    )),
    "prices check": VerbHelp("docs/cost.md", (
        ("farmhand prices check", "against the provider's page"),
        ("farmhand prices check pricing.html --json", "against a copy of it, for a program"),
    )),
    "rotate": VerbHelp("docs/operations.md", (
        ("farmhand rotate --new-key -", "the new key comes on stdin"),
        ("farmhand rotate --status", "where the rotation stands"),
    )),
    "report": VerbHelp("docs/cost.md", (
        ("farmhand report --html report.html", "one page to keep or to send on"),
        ("farmhand report --since 4w", "on the terminal"),
    )),
    "up": VerbHelp("docs/operations.md", (
        ("farmhand up -i inventory/mine --limit farm1 --check --diff", "show what would change"),
        ("farmhand up --create farm1 -e box_ssh_from=203.0.113.7/32", "make the host on AWS first"),
    )),
    "down": VerbHelp("docs/operations.md", (
        ("farmhand down", "remove the containers here"),
        ("farmhand down --delete-data", "and their ledger"),
    )),
    "gateway": VerbHelp("docs/gateway.md", (
        ("farmhand gateway serve", "run it"),
        ("farmhand gateway connect claude", "how a harness is pointed at it"),
    )),
    "cloud": VerbHelp("docs/aws.md", (
        ("farmhand cloud status", "what runs on AWS"),
        ("farmhand cloud up", "make the stacks; it says first what they cost"),
    )),
}  # fmt: skip

_ON_AWS = {
    "cloud up": (
        ("farmhand cloud up --network private", "with no way from the internet"),
        ("farmhand cloud up --check", "show what would change"),
    ),
    "cloud down": (
        ("farmhand cloud down --network-only", "only what costs by the hour"),
        ("farmhand cloud down --delete-data", "bucket, table and key too"),
    ),
    "cloud credential": (
        ("farmhand cloud credential put", "bring the metered key there"),
        ("farmhand cloud credential status", "what is there, and when it ends"),
    ),
    "cloud credential put": (
        ("farmhand cloud credential put --check", "check the key, and change nothing"),
        ("farmhand cloud credential put --kind git --source env:GIT_TOKEN", "for repositories that are not public"),
    ),
    "cloud credential status": (
        ("farmhand cloud credential status", "each with its end"),
        ("farmhand cloud credential status --warn-days 30", "say a month before what ends"),
    ),
    "cloud credential check": (
        ("farmhand cloud credential check --upload", "put again what has changed here"),
        ("farmhand cloud credential check --schedule systemd", "print a timer that does it daily"),
    ),
    "cloud credential rotate": (
        ("farmhand cloud credential rotate --new-key -", "the new key comes on stdin"),
        ("farmhand cloud credential rotate --status", "where the rotation stands"),
    ),
    "cloud credential remove": (
        ("farmhand cloud credential remove --kind login --yes", "take the login out"),
        ("farmhand cloud credential remove --previous", "only what the current one has replaced"),
    ),
    "cloud push": (
        ("farmhand cloud push", "build the image and bring it there"),
        ("farmhand cloud push --check", "say whether it is there"),
    ),
    "cloud status": (
        ("farmhand cloud status", "stacks, network, what runs"),
        ("farmhand cloud status --aws-environment test", "of another set of stacks"),
    ),
    "cloud logs": (
        ("farmhand cloud logs -f letters", "what a batch writes, as it comes"),
        ("farmhand cloud logs 7f3a", "what a task has written"),
    ),
    "cloud cancel": (
        ("farmhand cloud cancel letters", "end a batch"),
        ("farmhand cloud cancel 7f3a", "end a task"),
    ),
    "cloud verify": (
        ("farmhand cloud verify", "say what it would do, and its price"),
        ("farmhand cloud verify --live", "do it"),
    ),
    "cloud cost": (
        ("farmhand cloud cost", "of all that ran"),
        ("farmhand cloud cost --days 7", "of the last week"),
    ),
}
_OF_THE_GATEWAY = {
    "gateway serve": (
        ("farmhand gateway serve", "until Ctrl-C or SIGTERM"),
        ("farmhand gateway serve --gateway-config ./gateway.toml", "with other settings"),
    ),
    "gateway status": (
        ("farmhand gateway status", "backends, and what became of the turns"),
        ("farmhand gateway status --json", "the same for a program"),
    ),
    "gateway explain": (
        ("farmhand gateway explain", "why the last turn went where it went"),
        ("farmhand gateway explain --class review --tokens 40000", "where such a turn would go"),
    ),
    "gateway allow": (
        ("farmhand gateway allow metered --for 30m --max-usd 2", "let turns be paid for"),
        ("farmhand gateway allow metered --stop", "and close that again"),
    ),
    "gateway connect": (
        ("farmhand gateway connect claude", "for Claude Code"),
        ("farmhand gateway connect codex", "for Codex"),
    ),
    "gateway token": (
        ("farmhand gateway token", "what clients send"),
        ("farmhand gateway token --rotate", "put another in its place"),
    ),
    "gateway reload": (
        ("farmhand gateway reload", "read the settings again"),
        ("farmhand gateway reload --json", "the same for a program"),
    ),
}
HELP |= {verb: VerbHelp("docs/aws.md", examples) for verb, examples in _ON_AWS.items()}
HELP |= {verb: VerbHelp("docs/gateway.md", examples) for verb, examples in _OF_THE_GATEWAY.items()}
