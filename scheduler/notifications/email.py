"""Telling people: a mail as HTML and as text, with the report's page attached."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import Final

from proxy_worker.program.settings import read_secret
from scheduler.notifications.letter import DeliveryError, Letter
from scheduler.planning.addressees import EmailTarget, MailSecurity
from scheduler.reports import html, text

TIMEOUT_S: Final = 20.0
"""For each answer of the mail server."""


class MailError(DeliveryError):
    """A mail server can't be reached, or doesn't take the mail."""


def send(target: EmailTarget, letter: Letter, secrets_dir: Path) -> None:
    """Hand the mail to the server, once. Raises `MailError`, or `SecretError`."""
    password = None
    if target.credential is not None:
        password = read_secret(secrets_dir / f"{target.credential}.password", "password of the mail server")
    mail = message(target, letter)
    where = f"mail of notification {letter.notification} to {target.server}:{target.used_port}"
    try:
        with _connected(target) as server:
            if target.user is not None and password is not None:
                server.login(target.user, password)
            refused = server.send_message(mail)
    except (smtplib.SMTPException, OSError) as error:
        raise MailError(
            where, why=_words(error), remedy="Check server, port, security, user and password."
        ) from error
    if refused:
        raise MailError(where, why=f"it doesn't take mail for {', '.join(sorted(refused))}")


def message(target: EmailTarget, letter: Letter) -> EmailMessage:
    """The mail as it goes out; repetitions carry the same id."""
    mail = EmailMessage()
    mail["Subject"] = letter.subject
    mail["From"] = target.sender
    mail["To"] = ", ".join(target.to)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = f"<{letter.delivery}@{target.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text.plain(letter.report))
    mail.add_alternative(html.mail(letter.report), subtype="html")
    page = html.page(letter.report).encode()
    mail.add_attachment(page, maintype="text", subtype="html", filename=f"{letter.report.run}.html")
    return mail


def _connected(target: EmailTarget) -> smtplib.SMTP:
    if target.security is MailSecurity.TLS:
        return smtplib.SMTP_SSL(target.server, target.used_port, timeout=TIMEOUT_S, context=_trust(target))
    server = smtplib.SMTP(target.server, target.used_port, timeout=TIMEOUT_S)
    if target.security is MailSecurity.STARTTLS:
        try:
            server.starttls(context=_trust(target))
        except BaseException:
            server.close()
            raise
    return server


def _trust(target: EmailTarget) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=target.ca_file)


def _words(error: Exception) -> str:
    """What went wrong, without what was sent: a server may repeat a login in its answer."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"the server refuses the user or the password ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"it doesn't take mail for {', '.join(sorted(error.recipients))}"
    if isinstance(error, smtplib.SMTPResponseException):
        answer = (
            error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        )
        return f"it answered {error.smtp_code} {answer}"
    return f"{type(error).__name__}: {error}"
