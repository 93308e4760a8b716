"""`python -m tests.support.fargate_rules TEMPLATE…`: list what Fargate refuses. Exit code 1 if there is anything."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.fargate_rules.template import template_faults


def main(paths: list[str]) -> int:
    if not paths:
        print("usage: python -m tests.support.fargate_rules TEMPLATE…", file=sys.stderr)
        return 2
    try:
        found = [f"{path}: {fault}" for path in paths for fault in template_faults(Path(path))]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(found) if found else "nothing that Fargate refuses")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
