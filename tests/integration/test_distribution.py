"""What `make dist` and `make collection` build: the same bytes each time, and of use without a checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonValidator

from farmhand import __version__

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
WHEEL = f"farmhand-{__version__}-py3-none-any.whl"
PLUGIN = f"llm_farmhand-{__version__}-py3-none-any.whl"
SDIST = f"farmhand-{__version__}.tar.gz"
BILL = f"farmhand-{__version__}.cdx.json"
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}


def run(*words: str | Path, cwd: Path = ROOT, status: int = 0, environ: dict[str, str] | None = None) -> str:
    """What a program says on both outputs."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=os.environ | (environ or {}), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, ROOT / "scripts/dist.py", directory, environ=EPOCH)
    return directory


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an installer unpacks it, without what it depends on."""
    target = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-compile", "--target", target, dist / WHEEL)
    return target


def test_another_build_is_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in run("git", "ls-files", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)  # without its time and mode
    (copy / "roles/base/tasks/__pycache__").mkdir()
    (copy / "roles/base/tasks/__pycache__/x.pyc").touch()
    call = f"import os, runpy; os.umask(0o077); runpy.run_path('{copy}/scripts/dist.py', run_name='__main__')"
    run(sys.executable, "-c", call, tmp_path / "out", cwd=tmp_path, environ=EPOCH)
    for name in (WHEEL, PLUGIN, BILL):
        assert (tmp_path / "out" / name).read_bytes() == (dist / name).read_bytes(), name
    run(sys.executable, ROOT / "scripts/dist.py", tmp_path / "again", environ=EPOCH)
    assert (tmp_path / "again" / SDIST).read_bytes() == (dist / SDIST).read_bytes()


def test_the_sdist_builds_the_wheel(dist: Path, tmp_path: Path) -> None:
    with tarfile.open(dist / SDIST) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / SDIST.removesuffix(".tar.gz")
    assert not (source / "tests").exists()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source, environ=EPOCH)
    assert (tmp_path / WHEEL).read_bytes() == (dist / WHEEL).read_bytes()


def test_the_bill_names_what_comes_along(dist: Path) -> None:
    text = (dist / BILL).read_text("utf-8")
    assert JsonValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    named = {f"{each['name']}=={each['version']}" for each in bill["components"]}
    pins = re.findall(
        r"^([a-z0-9._-]+==[^ \\]+)", (ROOT / "requirements/workstation.txt").read_text("utf-8"), re.MULTILINE
    )
    assert {*pins} <= named
    assert {each.partition("==")[0] for each in named - {*pins}} == {"chart.js"}
    assert "ansible-core" in text


def test_the_wheel_brings_ansible_and_has_no_tests(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(f"farmhand-{__version__}.dist-info/METADATA").decode()
    for needed in ("ansible-core<2.20,>=2.19", "ansible-runner>=2.4", "hatchling>=1.27", "pip>=23", "rich>=13"):
        assert f"Requires-Dist: {needed}\n" in metadata
    assert {"farmhand/cli/up.py", "farmhand/project/site.yml", "farmhand/project/playbooks/remove.yml"} <= {*names}
    data = f"farmhand-{__version__}.data/data/share/man/man1"
    assert {f"{data}/farmhand.1", f"{data}/farmhand-cloud-up.1", "farmhand/project/docs/aws.md"} <= {*names}
    hidden = r"/\.(?!claude-plugin/|mcp\.json$)"
    assert not [name for name in names if re.search(rf"tests/|__pycache__|\.pyc|{hidden}", name)]


def test_it_runs_playbooks_from_anywhere(installed: Path, tmp_path: Path) -> None:
    here = {"PYTHONPATH": str(installed), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    unset = dict.fromkeys(("ANSIBLE_CONFIG", "ANSIBLE_INVENTORY", "FARMHAND_CONFIG", "FARMHAND_PROJECT_DIR"), "")
    farmhand = (sys.executable, "-c", "from farmhand.cli import main; main()")

    def said(*words: str, status: int = 0) -> str:
        return run(*farmhand, *words, cwd=tmp_path, status=status, environ=here | unset)

    inventory = tmp_path / "config/farmhand/inventory"
    assert said("up", status=3) == (
        f"farmhand: no farm host is known: {inventory} does not exist (farmhand init, or -i INVENTORY)\n"
    )
    assert {"remove", "upgrade", "verify", "workstation"} <= {*said("playbook", "list").split()}
    market = Path(said("mcp", "--plugin").strip(), ".claude-plugin/marketplace.json")
    assert market == installed / "farmhand/project/.claude-plugin/marketplace.json"
    [plugin] = json.loads(market.read_text())["plugins"]
    assert (market.parents[1] / plugin["source"] / "hooks/event.sh").is_file()
    assert "there is no playbook 'nothing'" in said("playbook", "nothing", status=2)
    inventory.mkdir(parents=True)
    (inventory / "farm1.yml").write_text("farm: {hosts: {farm1: {ansible_host: 203.0.113.10}}}\n")
    for words in (["up"], ["playbook", "remove"], ["playbook", "verify"]):
        assert "      farm1\n" in said(*words, "--list-hosts"), words
    assert "jada_agent" in said("up", "--list-tasks", "--limit", "farm1")
    (tmp_path / "mine").write_text("[farm]\nother\n")
    assert "      other\n" in said("up", "-i", "mine", "--list-hosts")


def test_its_hosts_get_the_agent_that_a_checkout_gives_them(installed: Path, tmp_path: Path) -> None:
    made = []
    for number, source in enumerate((ROOT, installed / "farmhand/project")):
        target = tmp_path / str(number)
        environ = EPOCH | {"HATCH_BUILD_NO_HOOKS": "true"}
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=source, environ=environ)
        made.append((target / WHEEL).read_bytes())
    assert made[0] == made[1]
    with zipfile.ZipFile(tmp_path / "0" / WHEEL) as wheel:
        assert not [name for name in wheel.namelist() if "/project/" in name]


def test_the_collection_works_by_its_full_names(tmp_path: Path) -> None:
    built = run(sys.executable, ROOT / "scripts/collection.py", tmp_path / "dist").strip()
    (tmp_path / "ansible.cfg").touch()
    home = {
        "HOME": str(tmp_path),
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "made"),
    }
    run(BIN / "ansible-galaxy", "collection", "install", "--offline", "-p", tmp_path / "made", built, environ=home)
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n"
        "    - farmhand.farm.farmhand_scrub: {backup_dir: /nowhere}\n      check_mode: true\n"
        "    - farmhand.farm.farmhand_route:\n"
        "    - debug: {msg: \"waits {{ '90s' | farmhand.farm.farmhand_seconds }} s\"}\n"
        "    - include_role: {name: farmhand.farm.jada_agent, tasks_from: wheel.yml}\n"
        '    - debug: {msg: "{{ __jada_agent_wheel.path | basename }}"}\n'
    )
    said = run(
        BIN / "ansible-playbook",
        "-i",
        "localhost,",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        play,
        cwd=tmp_path,
        environ=home,
    )
    assert "waits 90 s" in said
    assert WHEEL in said
    root = tmp_path / "made/ansible_collections/farmhand/farm"
    for name in ("site", "rotate_key", "remove", "upgrade", "verify"):
        run(
            BIN / "ansible-playbook",
            f"farmhand.farm.{name}",
            "-i",
            "farm1,",
            "--syntax-check",
            cwd=tmp_path,
            environ=home,
        )
    bare = re.compile(
        r"\|\s*farmhand_\w+|^\s*(?:- )?farmhand_(?:task|drain|route|scrub|search|key|billing|box):", re.MULTILINE
    )
    for path in (*(root / "roles").rglob("*.yml"), *(root / "playbooks").glob("*.yml")):
        assert not bare.search(path.read_text("utf-8")), path
