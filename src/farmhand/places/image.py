"""The container image of a place without systemd, built on this machine: no image registry is asked.

The base is Debian 12 from its signed archive (mmdebstrap), or an image that the operator names. The agent's packages
come by hash, the CLI by name and digest, as on a farm host.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from farmhand.core.child import scrubbed
from farmhand.core.errors import NotConfigured
from farmhand.core.files import xdg
from farmhand.core.scratch import private_directory

REPOSITORY = "farmhand-worker"
#: What is installed in it: the agent, and what it needs on AWS. One image serves every place.
LOCK = "requirements/cloud.txt"
BASE_PACKAGES = ("python3", "python3-seccomp", "git", "ripgrep", "ca-certificates")
_BASE = "farmhand-worker-base"
#: The label of an image that says which checkout it was built from.
_CHECKOUT = "farmhand.checkout"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: The Python of Debian 12, and the oldest libc that its wheels may ask for.
_PYTHON = "3.11"
_GLIBC = ("2_17", "2_28", "2_34", "2014")
#: Seconds that a program has to end by itself when this one is stopped.
_END_S = 20.0

#: Seconds that an engine has for what is asked, and for what it does beside the time that it is given.
_ANSWER_S, _DONE_S = 30.0, 120.0
_QUESTIONS = frozenset({"image", "inspect", "logs"})

Say = Callable[[str], None]


class EngineSilent(NotConfigured):
    """Docker's engine takes the connection and does not answer."""


def ensure(checkout: Path, say: Say, base: str = "") -> str:
    """Return the image's name. Build it first if there is none of these sources; `say` gets each step's name.

    `base` is an image with BASE_PACKAGES in it. Raise NotConfigured with the failed step's last line.
    """
    name = name_of(checkout, base)
    if not _exists(name):
        with _alone(say):
            if not _exists(name):  # another command has built it meanwhile
                _build(checkout, name, base or _base_name(), say)
    return name


def _build(checkout: Path, name: str, base: str, say: Say) -> None:
    cli = _cli(checkout)
    if base == _base_name() and not _exists(base):
        say("building the Debian base image, once")
        _build_base(base)
    ours = f"{_CHECKOUT}={hashlib.sha256(str(checkout).encode()).hexdigest()[:12]}"
    with private_directory() as private:
        made = private / "context"
        root = made / "rootfs"
        say("fetching the agent's packages")
        _install(checkout, root / "opt/farmhand/lib")
        say(f"fetching the claude CLI {cli['version']}")
        _unpack_cli(cli, root / "usr/bin/claude")
        programs = root / "opt/farmhand/share"
        programs.mkdir(parents=True)
        for file in ("agent/sandbox.py", "agent/bridge.py", "cloud/worktree.py"):
            shutil.copy(checkout / "src/farmhand" / file, programs)
        say("building the image")
        dockerfile = checkout / "container/Dockerfile"
        # The builder that every engine has; it needs no plugin.
        run(
            [
                *("docker", "build", "--quiet", "--force-rm", "--network", "none", "--build-arg", f"BASE={base}"),
                *("--tag", name, "--label", ours, "--file", str(dockerfile), str(made)),
            ],
            "the image",
            DOCKER_BUILDKIT="0",
        )
    _remove_others(name, ours)


@contextlib.contextmanager
def _alone(say: Say) -> Iterator[None]:
    """Keep other commands of this user from building at the same time."""
    with (_cache() / "image.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that builds an image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cache() -> Path:
    cache = Path(xdg("XDG_CACHE_HOME"), "farmhand")
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _remove_others(name: str, ours: str) -> None:
    """Remove the images of this checkout's earlier sources that no container uses."""
    listed = docker("image", "ls", "--filter", f"label={ours}", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY)
    for image in set(listed.split()) - {name}:
        with contextlib.suppress(NotConfigured):  # a container has it, or another command was first
            docker("image", "rm", image)


def name_of(checkout: Path, base: str = "") -> str:
    """Return the name that the image of these sources has, whether or not it is built. Raise NotConfigured."""
    return f"{REPOSITORY}:{_digest(checkout, _cli(checkout), base or _base_name())}"


def run(command: Sequence[str], what: str, **environ: str) -> str:
    """Return the stdout of a program. Raise NotConfigured with its last line if it fails or is not there."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, env=scrubbed() | environ, stdout=pipe, stderr=pipe, text=True)
    except OSError as error:
        raise NotConfigured(f"{command[0]} cannot be started: {error.strerror}", hint=f"install {command[0]}") from None
    try:
        out, err = process.communicate()
    except BaseException:
        # It is ended as by Ctrl-C: mmdebstrap has mounts to take back before its directory is removed.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_S)
        process.kill()
        raise
    if process.returncode:
        said = (err or out).strip().splitlines() or ["no reason given"]
        raise NotConfigured(f"{what} cannot be made: {command[0]}: {said[-1]}")
    return out


def docker(*words: str, fine: str = "", errors: bool = False) -> str:
    """Return the stdout of a docker command, "" if it failed with `fine` in its message. Raise NotConfigured.

    `errors` adds its stderr.
    """
    within_s = _ANSWER_S if words[0] in _QUESTIONS else _DONE_S
    try:
        done = subprocess.run(
            ["docker", *words],
            env=scrubbed(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.PIPE,
            text=True,
            check=False,
            timeout=within_s,
        )
    except subprocess.TimeoutExpired:
        raise EngineSilent(
            f"docker {words[0]}: its engine has not answered for {within_s:g} s", hint="see: docker info"
        ) from None
    except OSError as error:
        raise NotConfigured(f"docker cannot be started: {error.strerror}", hint="install docker.io") from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stderr or done.stdout or "").strip()
    if fine and fine in said:
        return ""
    # `docker network rm` has "exit status 1" below its reason.
    reasons = [line for line in said.splitlines() if not line.startswith("exit status ")] or ["no reason given"]
    raise NotConfigured(f"docker {words[0]} failed: {reasons[-1]}", hint="see: docker info")


def _exists(image: str) -> bool:
    return docker("image", "inspect", "--format", "{{.Id}}", image, fine="o such image") != ""


def _base_name() -> str:
    recipe = hashlib.sha256(",".join(BASE_PACKAGES).encode()).hexdigest()[:12]
    return f"{_BASE}:bookworm-{recipe}"


def _build_base(name: str) -> None:
    if not shutil.which("mmdebstrap"):
        hint = f"install mmdebstrap, or set worker_base_image to an image with {', '.join(BASE_PACKAGES)}"
        raise NotConfigured("mmdebstrap is missing, which makes the base image", hint=hint)
    with tempfile.TemporaryDirectory(prefix="farmhand-base-") as made:
        os.chmod(made, 0o755)  # noqa: S103  (apt's own user enters it)
        tar = str(Path(made, "base.tar"))
        mirror = [os.environ["FARMHAND_DEBIAN_MIRROR"]] if os.environ.get("FARMHAND_DEBIAN_MIRROR") else []
        run(
            [
                *("mmdebstrap", "--format=tar", "--variant=minbase", f"--keyring={_KEYRING}"),
                *(f"--include={','.join(BASE_PACKAGES)}", '--aptopt=Acquire::Languages "none"'),
                *('--aptopt=Acquire::Retries "3"', "bookworm", tar, *mirror),
            ],
            "the base image",
            TMPDIR=made,
        )
        run(["docker", "import", tar, name], "the base image")


def _cli(checkout: Path) -> dict[str, str]:
    """Return version, package and digests of the CLI that the role claude_cli pins for this machine."""
    import yaml

    def values(path: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((checkout / "roles/claude_cli" / path).read_text("utf-8"))
        return found

    pinned, machine = values("vars/main.yml"), platform.machine()
    version = str(values("defaults/main.yml")["claude_cli_version"])
    try:
        digests = pinned["_claude_cli_digests"][version][machine]
        package = str(pinned["_claude_cli_packages"][machine])
    except KeyError:
        raise NotConfigured(f"the role claude_cli pins no CLI {version} for {machine}") from None
    return {"version": version, "package": package, **digests}


def _unpack_cli(cli: dict[str, str], target: Path) -> None:
    cache = _cache()
    tarball = cache / f"{cli['package'].lstrip('@').replace('/', '-')}-{cli['version']}.tgz"
    if not tarball.exists():
        run(
            ["npm", "pack", "--silent", "--pack-destination", str(cache), f"{cli['package']}@{cli['version']}"],
            "the CLI",
        )
    with tarball.open("rb") as file:
        found = hashlib.file_digest(file, "sha512").digest()
    if found != b64decode(cli["tarball"].removeprefix("sha512-")):
        tarball.unlink()
        raise NotConfigured(
            f"{cli['package']}@{cli['version']} is not the package that was pinned", hint="run it again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tarball) as package, target.open("wb") as binary:
        member = package.extractfile("package/claude")
        assert member is not None  # noqa: S101  (the digest says what is in it)
        shutil.copyfileobj(member, binary)
    target.chmod(0o755)


def _install(checkout: Path, target: Path) -> None:
    """Install the locked packages and farmhand itself into `target`, for the image's Python."""
    platforms = [f"--platform=manylinux{'_' if '_' in v else ''}{v}_{platform.machine()}" for v in _GLIBC]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", f"--target={target}"]
    lock = checkout / LOCK
    run(
        [
            *pip,
            "--require-hashes",
            "--only-binary=:all:",
            f"--python-version={_PYTHON}",
            *platforms,
            f"--requirement={lock}",
        ],
        "the agent's packages",
    )
    shutil.copytree(checkout / "src/farmhand", target / "farmhand", ignore=shutil.ignore_patterns("__pycache__"))


def _digest(checkout: Path, cli: dict[str, str], base: str) -> str:
    """Return what the image's content depends on, shortened."""
    found = hashlib.sha256(repr((sorted(cli.items()), base)).encode())
    files = sorted(p for p in (checkout / "src/farmhand").rglob("*") if p.is_file() and p.suffix != ".pyc")
    for file in (*files, checkout / "container/Dockerfile", checkout / LOCK):
        found.update(f"{file.relative_to(checkout)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:12]
