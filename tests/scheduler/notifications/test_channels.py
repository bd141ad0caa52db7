"""Webhooks and mails, to real servers: what arrives, what is verified, what is said when it doesn't."""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path

import pytest

from proxy_worker.program.settings import SecretError
from scheduler.notifications.email import MailError, send
from scheduler.notifications.letter import Letter
from scheduler.notifications.webhook import WebhookError, post, signature
from scheduler.planning.addressees import EmailTarget, MailSecurity, WebhookTarget
from scheduler.reports.run_report import RunReport, run_report
from scheduler.state.models import Run
from scheduler.state.store import State
from tests.scheduler.notifications.conftest import Endpoint, end_run, mail_server
from tests.transport.certificates import make_certificates


@pytest.fixture
def letter(report: RunReport) -> Letter:
    return Letter("delivery-1", "admins", report)


def target(port: int, **changes: object) -> EmailTarget:
    keys: dict[str, object] = {
        "to": ("admins@example.com",),
        "sender": "backup@example.com",
        "server": "127.0.0.1",
        "port": port,
        "security": "none",
    }
    return EmailTarget.model_validate(keys | changes)


def test_a_webhook_gets_the_report_as_json(endpoint: Endpoint, letter: Letter, tmp_path: Path) -> None:
    post(WebhookTarget(url=endpoint.url), letter, tmp_path)

    headers, body = endpoint.requests.get(timeout=120)
    told = json.loads(body)
    assert (told["event"], told["delivery"], told["notification"]) == ("run.ended", "delivery-1", "admins")
    assert told["subject"] == "[proxyfleet] nightly succeeded: 1 VM backed up, 0 B stored, 1 min 3 s"
    assert told["report"]["run"] == "run-1"
    assert told["report"]["ended"] == "2026-11-18T11:07:43Z"
    assert [vm["vm"] for vm in told["report"]["vms"]] == ["web01 <b>"]
    assert headers["Content-Type"] == "application/json"
    assert "X-Proxyfleet-Signature" not in headers


def test_what_is_signed_can_be_verified_with_the_secret_alone(
    endpoint: Endpoint, letter: Letter, tmp_path: Path
) -> None:
    (tmp_path / "tickets.secret").write_text("a shared secret\n")

    post(WebhookTarget(url=endpoint.url, signing_credential="tickets"), letter, tmp_path)

    headers, body = endpoint.requests.get(timeout=120)
    timestamp = headers["X-Proxyfleet-Timestamp"]
    assert headers["X-Proxyfleet-Signature"] == signature("a shared secret", timestamp, body)
    assert abs(int(timestamp) - time.time()) < 60
    assert "a shared secret" not in f"{headers}{body!r}"


def test_an_address_that_is_a_secret_comes_from_a_file_and_stays_out_of_messages(
    endpoint: Endpoint, letter: Letter, tmp_path: Path
) -> None:
    endpoint.status = 403
    (tmp_path / "chat.url").write_text(f"{endpoint.url}/T0KEN\n")
    with pytest.raises(WebhookError) as refused:
        post(WebhookTarget(url_credential="chat"), letter, tmp_path)
    assert "it answered 403" in str(refused.value)
    assert "T0KEN" not in str(refused.value)


def test_a_redirection_is_not_followed(endpoint: Endpoint, letter: Letter, tmp_path: Path) -> None:
    endpoint.status = 302
    with pytest.raises(WebhookError, match="it answered 302"):
        post(WebhookTarget(url=endpoint.url), letter, tmp_path)
    assert endpoint.requests.qsize() == 1


def test_a_server_that_is_away_and_a_secret_that_is_missing_are_named(letter: Letter, tmp_path: Path) -> None:
    with pytest.raises(WebhookError, match=r"notification admins at 127\.0\.0\.1:1: .*Check the address"):
        post(WebhookTarget(url="http://127.0.0.1:1/hook"), letter, tmp_path)
    with pytest.raises(SecretError, match=r"chat\.url"):
        post(WebhookTarget(url_credential="chat"), letter, tmp_path)


def test_a_mail_can_be_read_as_text_as_html_and_has_the_page_attached(letter: Letter, tmp_path: Path) -> None:
    with mail_server() as server:
        send(target(server.port), letter, tmp_path)
        mail = server.mails.get(timeout=120)

    assert mail["Subject"] == letter.subject
    assert (mail["From"], mail["To"]) == ("backup@example.com", "admins@example.com")
    assert mail["Message-ID"] == "<delivery-1@example.com>"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert "nightly: succeeded" in plain.get_content()
    assert "web01 &lt;b&gt;" in html.get_content()
    (page,) = mail.iter_attachments()
    assert page.get_filename() == "run-1.html"
    assert page.get_content().startswith("<!doctype html>")


def test_a_warning_of_several_lines_makes_a_subject_of_one(state: State, tmp_path: Path) -> None:
    end_run(state, warning="its snapshot stays:\r\n\tthe disk is locked")
    with state.read() as session:
        warned = run_report(session, session.get_one(Run, "run-1"))

    with mail_server() as server:
        send(target(server.port), Letter("delivery-1", "admins", warned), tmp_path)
        mail = server.mails.get(timeout=120)

    assert mail["Subject"] == (
        "[proxyfleet] nightly succeeded with warnings: web01 <b>: its snapshot stays: the disk is locked"
    )


def test_mail_goes_over_verified_tls_with_a_login(letter: Letter, tmp_path: Path) -> None:
    make_certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server-cert.pem", tmp_path / "server-key.pem")
    (tmp_path / "mail.password").write_text("a long password\n")
    with mail_server(tls) as server:
        keys = {"security": MailSecurity.STARTTLS, "user": "backup", "credential": "mail"}
        with pytest.raises(MailError, match="CERTIFICATE_VERIFY_FAILED"):
            send(target(server.port, **keys), letter, tmp_path)

        trusting = target(server.port, **keys, ca_file=str(tmp_path / "ca-cert.pem"))
        send(trusting, letter, tmp_path)
        assert server.mails.get(timeout=120)["Subject"] == letter.subject
        assert server.logins == [b"backup"]

        (tmp_path / "mail.password").write_text("another one")
        with pytest.raises(MailError, match=r"refuses the user or the password \(535\)") as refused:
            send(trusting, letter, tmp_path)
        assert "another one" not in str(refused.value)


def test_an_address_that_the_mail_server_does_not_know_is_named(letter: Letter, tmp_path: Path) -> None:
    with mail_server() as server, pytest.raises(MailError, match=r"doesn't take mail for nobody@example\.com"):
        send(target(server.port, to=("nobody@example.com",)), letter, tmp_path)


def test_a_password_is_never_sent_in_clear() -> None:
    with pytest.raises(ValueError, match="a password is not sent in clear"):
        target(25, user="backup", credential="mail")
