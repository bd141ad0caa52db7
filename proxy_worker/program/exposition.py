"""Metrics for Prometheus, offered over HTTP by a thread: where, to whom, and over TLS if there is a certificate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, model_validator

from proxy_worker.program.listening import ListenError
from proxy_worker.program.settings import Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry

HIGHEST_PORT = 65_535


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) <= HIGHEST_PORT):
        raise ValueError(f"expected an address and a port such as '127.0.0.1:9464', got {text!r}")
    return text


class MetricsSettings(Settings):
    """Metrics for Prometheus. They hold names of jobs, VMs and proxies, and no secret."""

    listen: Annotated[str, AfterValidator(_address)] | None = None
    """Where they are offered: `127.0.0.1:9464`, `[::1]:9464`, `0.0.0.0:9464`; none: nowhere."""
    certificate: Path | None = None
    """Shown to whoever asks, then over TLS only; none: no TLS, which is for this machine or a reverse proxy."""
    key: Path | None = None
    """The key of `certificate`."""
    client_ca_file: Path | None = None
    """With TLS: only those get an answer whose certificate this authority made; none: everybody."""

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are given together or not at all")
        if self.client_ca_file is not None and self.certificate is None:
            raise ValueError("client_ca_file needs a certificate and its key")
        return self

    def below(self, folder: Path) -> Self:
        """The same with every path absolute, relative ones being relative to `folder`."""
        paths = {name: getattr(self, name) for name in ("certificate", "key", "client_ca_file")}
        return self.model_copy(update={name: folder / path for name, path in paths.items() if path is not None})


@contextmanager
def exposed(registry: CollectorRegistry, settings: MetricsSettings) -> Iterator[int | None]:
    """Offer what `registry` collects while the block runs; the port, or None where nothing is offered.

    Raises `ListenError`.
    """
    if settings.listen is None:
        yield None
        return
    from prometheus_client import start_http_server  # noqa: PLC0415 - not for those who offer nothing

    host, _, port = settings.listen.rpartition(":")
    try:
        server, thread = start_http_server(
            int(port),
            host.strip("[]"),
            registry,
            certfile=_text(settings.certificate),
            keyfile=_text(settings.key),
            client_cafile=_text(settings.client_ca_file),
            client_auth_required=settings.client_ca_file is not None,
        )
    except OSError as error:
        raise ListenError(
            f"metrics at {settings.listen}",
            why=error.strerror or str(error),
            remedy="Check `listen`, `certificate`, `key` and `client_ca_file` below [metrics].",
        ) from error
    server.set_app(_at_its_path(server.get_app()))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _at_its_path(metrics: WSGIApplication | None) -> WSGIApplication:
    """The same at `/metrics` alone: by itself, it answers under any path."""
    assert metrics is not None  # noqa: S101 - the server was made with it

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"Metrics are at /metrics.\n"]

    return answer


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None
