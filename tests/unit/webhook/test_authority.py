"""The hand-over from one authority to the next: at every moment, what a replica shows is trusted by what API servers were told."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from services.webhook.authority import FORGOTTEN, RENEW_BEFORE, SETTLED, Authority, due, from_secret
from services.webhook.certificate import CA_VALID, SERVER_VALID, new_server, read_certificate

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def trusts(bundle: bytes, authority: Authority, now: datetime) -> bool:
    server = read_certificate(new_server(("localhost",), authority.current, now).certificate)
    for ca in x509.load_pem_x509_certificates(bundle):
        if ca.subject == server.issuer:
            server.verify_directly_issued_by(ca)
            return ca.not_valid_after_utc >= server.not_valid_after_utc
    return False


def test_it_is_made_once_and_kept() -> None:
    made = due(None, START)
    assert due(made, START) is made
    assert due(made, START + CA_VALID - RENEW_BEFORE - SECOND) is made
    assert trusts(made.bundle, made, START)


def test_the_next_is_trusted_first_signs_later_and_the_former_goes_last() -> None:
    first = due(None, START)
    now = START + CA_VALID - RENEW_BEFORE + SECOND
    trusted = due(first, now)
    assert trusted.current == first.current and trusted.next is not None
    assert due(trusted, now + SETTLED - SECOND) is trusted
    signing = due(trusted, now + SETTLED)
    assert signing.current == trusted.next and signing.next is None
    assert signing.former == first.current.certificate
    assert due(signing, now + FORGOTTEN - SECOND) is signing
    alone = due(signing, now + FORGOTTEN)
    assert alone.former == b"" and due(alone, now + FORGOTTEN) is alone


def test_a_replica_one_step_behind_is_still_trusted_and_so_is_one_ahead() -> None:
    steps = [due(None, START)]
    now = START + CA_VALID - RENEW_BEFORE + SECOND
    for after in (timedelta(), SETTLED, FORGOTTEN):
        steps.append(due(steps[-1], now + after))
    for step in steps:
        assert trusts(step.bundle, step, now)
    # what the former signed lives at most as long as nobody forgets it: replicas sign anew as soon as they see the next
    assert trusts(steps[2].bundle, steps[1], now) and trusts(steps[1].bundle, steps[2], now)


def test_an_authority_that_ended_is_replaced_at_once() -> None:
    old = due(None, START)
    fresh = due(old, START + CA_VALID + SECOND)
    assert fresh.current != old.current and fresh.former == b""


def test_nothing_is_signed_beyond_the_authority() -> None:
    made = due(None, START)
    late = START + CA_VALID - timedelta(days=10)
    server = read_certificate(new_server(("localhost",), made.current, late).certificate)
    assert server.not_valid_after_utc == read_certificate(made.current.certificate).not_valid_after_utc
    assert RENEW_BEFORE > SERVER_VALID


def test_the_secret_holds_it_whole() -> None:
    now = START + CA_VALID - RENEW_BEFORE + SECOND
    one = due(due(None, START), now)
    two = due(one, now + SETTLED)
    for authority in (due(None, START), one, two):
        assert from_secret(authority.to_secret()) == authority
    assert from_secret({}) is None and from_secret({"ca.crt": "x"}) is None


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(b"no certificate").decode()])
def test_a_secret_that_holds_something_else_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_secret({"ca.crt": text, "ca.key": text})
