"""dist.py DIRECTORY: build the wheels, the sdist and the bill of what they bring (CycloneDX), the same bytes each time.

SOURCE_DATE_EPOCH is their time; without it, that of the checkout's last commit.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

import farmhand

ROOT = Path(__file__).resolve().parents[1]
#: What the wheel brings onto a workstation: name, version, and the marker that says where.
_PINNED = re.compile(r"^([a-z0-9._-]+)==(\S+?)(?: ; (.+?))? \\$", re.MULTILINE)
#: Other people's work that is in the wheel itself.
_CHART = ROOT / "src/farmhand/cost/assets/chart.umd.min.js"


def epoch() -> str:
    """Return the time of the sources in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    done = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "1577836800"


def build(directory: Path) -> list[Path]:
    """Build wheel, sdist, and the wheel of llm's plugin into `directory`. Raise CalledProcessError."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HATCH_")}
    python = [sys.executable, "-m"]
    with tempfile.TemporaryDirectory() as pages:
        environ |= {"SOURCE_DATE_EPOCH": epoch(), "FARMHAND_MAN_PAGES": pages}
        written = [*python, "farmhand.cli.man_pages", pages]
        subprocess.run(written, cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True)
        for page in Path(pages).iterdir():
            page.chmod(0o644)  # whatever the umask is
        for source, kinds in ((ROOT, ["-t", "wheel", "-t", "sdist"]), (ROOT / "llm-farmhand", ["-t", "wheel"])):
            words = [*python, "hatchling", "build", *kinds, "-d", str(directory)]
            subprocess.run(words, cwd=source, env=environ, stdout=subprocess.PIPE, check=True)
    names = ("farmhand-{}-py3-none-any.whl", "farmhand-{}.tar.gz", "llm_farmhand-{}-py3-none-any.whl")
    return [directory / name.format(farmhand.__version__) for name in names]


def bill(wheel: Path) -> str:
    """Return the bill of materials of `wheel` as JSON: the packages that the lock pins, and what is in it."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    own = Component(
        name="farmhand",
        version=farmhand.__version__,
        type=ComponentType.APPLICATION,
        bom_ref="farmhand",
        purl=PackageURL("pypi", None, "farmhand", farmhand.__version__),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest),
        metadata=BomMetaData(component=own, timestamp=datetime.datetime.fromtimestamp(int(epoch()), datetime.UTC)),
    )
    for name, version, marker in _PINNED.findall((ROOT / "requirements/workstation.txt").read_text("utf-8")):
        purl = PackageURL("pypi", None, name, version)
        where = [Property(name="python:marker", value=marker)] if marker else []
        bom.components.add(Component(name=name, version=version, bom_ref=str(purl), purl=purl, properties=where))
    chart = re.search(r"Chart\.js v([\d.]+)", _CHART.read_text("utf-8")[:400])
    assert chart is not None, f"{_CHART} does not say its version"  # noqa: S101
    purl = PackageURL("npm", None, "chart.js", chart[1])
    content = hashlib.sha256(_CHART.read_bytes()).hexdigest()
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=content)]
    bom.components.add(Component(name="chart.js", version=chart[1], bom_ref=str(purl), purl=purl, hashes=hashes))
    bom.register_dependency(own, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def main() -> int:
    """Build everything into the directory that the command line names."""
    directory = Path(sys.argv[1]).absolute()
    wheel, *others = build(directory)
    path = directory / f"farmhand-{farmhand.__version__}.cdx.json"
    path.write_text(bill(wheel), "utf-8")
    sys.stdout.write("".join(f"{each}\n" for each in (wheel, *others, path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
