"""Version stages of Secrets Manager, where moto differs from the service."""

from __future__ import annotations

from typing import Any

from moto.secretsmanager.exceptions import (
    InvalidParameterException,
    ResourceExistsException,
    ResourceNotFoundException,
)
from moto.secretsmanager.models import SecretsManagerBackend


def change() -> None:
    """Change moto."""
    put = SecretsManagerBackend.put_secret_value
    get, move = SecretsManagerBackend.get_secret_value, SecretsManagerBackend.update_secret_version_stage

    def get_secret_value(self: Any, secret_id: str, version_id: str, version_stage: str) -> Any:
        """AWSCURRENT is what is meant where nothing is said. A stage that no version has is not found."""
        stage = version_stage or (None if version_id else "AWSCURRENT")
        if stage and self._is_valid_identifier(secret_id) and not version_id:
            versions = self.secrets[secret_id].versions.values()
            if not any(stage in version["version_stages"] for version in versions):
                raise ResourceNotFoundException(
                    f"Secrets Manager can't find the specified secret value for staging label: {stage}"
                )
        return get(self, secret_id, version_id, stage)

    def update_stage(
        self: Any, secret_id: str, version_stage: str, remove_from_version_id: str, move_to_version_id: str
    ) -> Any:
        """A stage is on one version; to move it one must say from which. It is never twice on the same version."""
        if self._is_valid_identifier(secret_id):
            versions = self.secrets[secret_id].versions
            holders = [key for key, version in versions.items() if version_stage in version["version_stages"]]
            if move_to_version_id and set(holders) - {move_to_version_id} and not remove_from_version_id:
                raise InvalidParameterException(
                    f"The parameter RemoveFromVersionId can't be empty. Staging label {version_stage} is currently "
                    f"attached to version {holders[0]}, so you must explicitly reference that version in "
                    "RemoveFromVersionId."
                )
        made = move(self, secret_id, version_stage, remove_from_version_id, move_to_version_id)
        for version in self.secrets[secret_id].versions.values():
            version["version_stages"][:] = list(dict.fromkeys(version["version_stages"]))
        return made

    def put_secret_value(self: Any, secret_id: str, client_request_token: str, **given: Any) -> Any:
        """A version never changes: the same token with another value is refused, also while it is pending."""
        token = client_request_token
        if self._is_valid_identifier(secret_id) and (before := self.secrets[secret_id].versions.get(token)):
            held = before.get("secret_string"), before.get("secret_binary")
            if held not in ((None, None), (given["secret_string"], given["secret_binary"])):
                raise ResourceExistsException(
                    f"You can't use ClientRequestToken {token} because that value is already in use for a version of "
                    f"secret {self.secrets[secret_id].arn}."
                )
        return put(self, secret_id=secret_id, client_request_token=token, **given)

    SecretsManagerBackend.put_secret_value = put_secret_value
    SecretsManagerBackend.get_secret_value = get_secret_value
    SecretsManagerBackend.update_secret_version_stage = update_stage
