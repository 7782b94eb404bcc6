"""The certificate authority that all replicas share: what the Secret holds, and what it should hold next.

Owns the hand-over from one authority to the next, in steps so far apart that no API server ever meets a certificate it does not trust
yet: the next one is trusted first, signs later, and the former is forgotten last. Must not know Kubernetes or files.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from services.webhook.certificate import BACKDATE, SERVER_VALID, Pair, new_authority, read_certificate

RENEW_BEFORE = SERVER_VALID + timedelta(days=60)
"""The next authority is made while the present one still outlives whatever it signs."""
SETTLED = timedelta(hours=1)
"""From trusted to signing: every replica looks once a minute, and so does every API server's copy of the configurations follow."""
FORGOTTEN = timedelta(days=2)
_CERTIFICATE, _KEY = "ca.crt", "ca.key"
_NEXT_CERTIFICATE, _NEXT_KEY = "next-ca.crt", "next-ca.key"
_FORMER = "former-ca.crt"


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """`current` signs; `current`, `next` and `former` are trusted."""

    current: Pair
    next: Pair | None = None
    former: bytes = b""

    @property
    def bundle(self) -> bytes:
        """What clients should trust, PEM."""
        following = self.next.certificate if self.next is not None else b""
        return self.current.certificate + following + self.former

    def to_secret(self) -> dict[str, str]:
        """`data` of the Secret."""
        members = {_CERTIFICATE: self.current.certificate, _KEY: self.current.key, _FORMER: self.former}
        if self.next is not None:
            members |= {_NEXT_CERTIFICATE: self.next.certificate, _NEXT_KEY: self.next.key}
        return {key: base64.b64encode(pem).decode() for key, pem in members.items() if pem}


def from_secret(data: Mapping[str, str]) -> Authority | None:
    """None where there is none yet. Raises ValueError for content that is no authority."""
    if not data.get(_CERTIFICATE) or not data.get(_KEY):
        return None
    found = {key: base64.b64decode(text, validate=True) for key, text in data.items()}
    following = None
    if found.get(_NEXT_CERTIFICATE) and found.get(_NEXT_KEY):
        following = Pair(found[_NEXT_CERTIFICATE], found[_NEXT_KEY])
        read_certificate(following.certificate)
    read_certificate(found[_CERTIFICATE])
    return Authority(
        current=Pair(found[_CERTIFICATE], found[_KEY]), next=following, former=found.get(_FORMER, b"")
    )


def due(authority: Authority | None, now: datetime) -> Authority:
    """What the Secret should hold now; the same object where nothing is due. One step at a time. Makes keys where one is due."""
    if authority is None:
        return Authority(current=new_authority(now))
    current = read_certificate(authority.current.certificate)
    if current.not_valid_after_utc <= now:
        return Authority(
            current=new_authority(now)
        )  # nobody has trusted it for long: there is nothing to hand over
    if authority.next is not None:
        if now >= _made(authority.next) + SETTLED:
            return Authority(current=authority.next, former=authority.current.certificate)
        return authority
    if current.not_valid_after_utc - now < RENEW_BEFORE:
        return msgspec.structs.replace(authority, next=new_authority(now))
    if authority.former and now >= _made(authority.current) + FORGOTTEN:
        return msgspec.structs.replace(authority, former=b"")
    return authority


def _made(pair: Pair) -> datetime:
    return read_certificate(pair.certificate).not_valid_before_utc + BACKDATE
