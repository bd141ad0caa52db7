"""Whom a notification goes to and when: values that the fleet file and the database share. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxy_worker.contract.subjects import Name

DEFAULT_PORTS = {"starttls": 587, "tls": 465, "none": 25}


class NotifyWhen(StrEnum):
    """Which runs' ends are told."""

    ALWAYS = "always"
    WARNING = "warning"
    """Those that failed, wholly or in part, and those with warnings."""
    FAILURE = "failure"
    """Those that failed, wholly or in part."""


class MailSecurity(StrEnum):
    """How the connection to a mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


def _http_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"expected an http:// or https:// address, got {text!r}")
    return text


def _address(text: str) -> str:
    name, at, host = text.rpartition("@")
    if not (name and at and host) or any(character.isspace() for character in text):
        raise ValueError(f"expected a mail address such as 'backup@example.com', got {text!r}")
    return text


def _absolute_file(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"expected an absolute path, got {text!r}")
    return text


MailAddress = Annotated[str, AfterValidator(_address)]
CaFile = Annotated[str, AfterValidator(_absolute_file)]


class Target(BaseModel):
    """Immutable, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class WebhookTarget(Target):
    """A server that gets the run's report as JSON in an HTTP POST."""

    url: Annotated[str, AfterValidator(_http_url)] | None = None
    """Where to; anybody who may read the fleet file sees it."""
    url_credential: Name | None = None
    """Instead of `url`: the secret `<url_credential>.url` holds it, for addresses that are secrets themselves."""
    signing_credential: Name | None = None
    """The secret `<signing_credential>.secret` signs each body (HMAC-SHA256)."""
    ca_file: CaFile | None = None
    """A file of certificate authorities that verify the server; without this key, the system's do."""

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if (self.url is None) == (self.url_credential is None):
            raise ValueError("expected either 'url' or 'url_credential'")
        return self


class EmailTarget(Target):
    """People who get the run's report by mail."""

    to: Annotated[tuple[MailAddress, ...], Field(min_length=1)]
    """Whom to."""
    sender: MailAddress
    """Whom it is from."""
    server: Annotated[str, Field(min_length=1, max_length=255)]
    """The mail server's host name or address."""
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Its port; without this key, 587 with `starttls`, 465 with `tls`, 25 with `none`."""
    security: MailSecurity = MailSecurity.STARTTLS
    """`starttls` or `tls`, both verified; `none` sends everything in clear, and no password."""
    user: Annotated[str, Field(min_length=1)] | None = None
    """Whom to log in as; without this key, nobody."""
    credential: Name | None = None
    """The secret `<credential>.password` of that user."""
    ca_file: CaFile | None = None
    """A file of certificate authorities that verify the server; without this key, the system's do."""

    @property
    def used_port(self) -> int:
        """The port that applies."""
        return self.port if self.port is not None else DEFAULT_PORTS[self.security]

    @model_validator(mode="after")
    def _password_needs_tls(self) -> Self:
        if (self.user is None) != (self.credential is None):
            raise ValueError("'user' and 'credential' are given together or not at all")
        if self.user is not None and self.security is MailSecurity.NONE:
            raise ValueError("a password is not sent in clear: use security 'starttls' or 'tls', or no 'user'")
        return self
