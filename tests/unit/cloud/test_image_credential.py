"""The credential of the agent container's own image: taken only if the definition says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmhand.cloud import credential
from farmhand.cloud.ending import ContainerEnds
from farmhand.core import keys, shard, task_access

KEY = "sk-ant-test-of-an-image-000000000001"
TOKEN = "sk-ant-oat01-test-of-an-image-00000001"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "credential"
    path.write_text(KEY)
    path.chmod(0o400)
    monkeypatch.setattr(credential, "BAKED_FILE", str(path))
    return path


def taken(**environ: str) -> credential.HeldCredential:
    return credential.take({task_access.SOURCE: task_access.BAKED, **environ})


def written(path: Path, text: str) -> None:
    path.chmod(0o600)
    path.write_text(text)


def test_it_is_taken_from_the_file(file: Path) -> None:
    held = taken()
    assert (held.kind, held.value, held.fingerprint, held.mode) == ("key", KEY, keys.fingerprint(KEY), "key")
    written(file, f"{TOKEN}\n")
    held = taken(FARMHAND_CREDENTIAL_KIND="setup-token")
    assert (held.kind, held.value, held.mode) == ("setup-token", TOKEN, "plan")


def test_without_the_order_the_file_is_not_looked_at(file: Path) -> None:
    assert credential.take({shard.CREDENTIAL: KEY + "2"}).value == KEY + "2"
    with pytest.raises(ContainerEnds):
        credential.take({})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({shard.CREDENTIAL: KEY}, "set beside the image's own"),
        ({shard.CREDENTIAL_KIND: "login"}, "'login', which is not taken from an image"),
        ({shard.CREDENTIAL_KIND: "none"}, "'none', which is not taken from an image"),
        ({shard.CREDENTIAL_KIND: "setup-token"}, "no access token of a plan"),
    ],
)
def test_what_does_not_fit_ends_the_container(file: Path, environ: dict[str, str], said: str) -> None:
    with pytest.raises(ContainerEnds, match=said) as caught:
        taken(**environ)
    assert (caught.value.code, KEY in str(caught.value)) == (shard.EXIT_CONFIG, False)


def test_a_file_that_is_not_this_user_s_alone_is_refused(file: Path, tmp_path: Path) -> None:
    file.chmod(0o444)
    with pytest.raises(ContainerEnds, match="not this user's alone"):
        taken()
    file.rename(tmp_path / "other")
    with pytest.raises(ContainerEnds, match="cannot be read"):
        taken()
    file.symlink_to(tmp_path / "other")
    with pytest.raises(ContainerEnds, match="cannot be read"):
        taken()
