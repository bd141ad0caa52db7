"""A real S3-compatible object store: SeaweedFS, one process with a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from botocore.session import Session

from ops.demo.valkey import free_port
from proxy_worker.contract.errors import StoreError
from proxy_worker.repository.store.objects import ObjectStore

LOCKING_BUCKET = "locking"
ACCESS_KEY = ("proxyfleet", "a secret of the tests")
_DEADLINE_S = 120.0


@dataclass(frozen=True)
class ObjectStorage:
    """A running server, with one access key that may do everything."""

    endpoint: str

    def url(self) -> str:
        """A place that nothing is in yet."""
        return f"s3://backup/{secrets.token_hex(6)}?endpoint={self.endpoint}"

    def client(self) -> Any:
        """A client of the server's owner, who may do what a repository never does."""
        return _client_of(self.endpoint)

    def locking_url(self) -> str:
        """The same in a bucket with object lock."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=LOCKING_BUCKET, ObjectLockEnabledForBucket=True)
        return self.url().replace("s3://backup/", f"s3://{LOCKING_BUCKET}/")

    @property
    def environment(self) -> dict[str, str]:
        """What commands find the access key by."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY[0], "AWS_SECRET_ACCESS_KEY": ACCESS_KEY[1]}


@cache
def _client_of(endpoint: str) -> Any:
    session = Session()
    session.set_credentials(*ACCESS_KEY)
    return session.create_client("s3", region_name="us-east-1", endpoint_url=endpoint)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ObjectStorage]:
    """Serve until the block ends."""
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY[0], "secretKey": ACCESS_KEY[1]}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = [
        f"-{part}.port{kind}={free_port()}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")
    ]
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-ip=127.0.0.1"),
        *("-ip.bind=127.0.0.1", "-volume.max=30", "-master.volumeSizeLimitMB=64", *ports),
        *("-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-s3", f"-s3.port={port}", f"-s3.port.grpc={free_port()}", f"-s3.config={folder / 's3.json'}"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_ready(process, port, folder / "log")
            yield ObjectStorage(f"http://127.0.0.1:{port}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_DEADLINE_S)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    store = ObjectStore(f"s3://backup/ready?endpoint=http://127.0.0.1:{port}", access_key=ACCESS_KEY)
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        # What listens already may answer late, or not yet, on a machine that is busy.
        with contextlib.suppress(OSError, StoreError):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            except urllib.error.HTTPError:
                store.prepare()  # its parts have found each other
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
