"""SSH keys that a lab makes for itself: one for each host, and one that opens them all."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KIND = "ssh-ed25519"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key as OpenSSH writes it.

    Attributes:
        private: the content of a key file.
        blob: the public key in SSH's wire format.
    """

    private: bytes
    blob: bytes

    @property
    def public(self) -> str:
        """As in authorized_keys."""
        return f"{KIND} {base64.b64encode(self.blob).decode()}"


def new_key() -> KeyPair:
    """Make a key."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private, base64.b64decode(public.split()[1]))
