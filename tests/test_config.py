"""proxy.toml: read, overridden by the environment, and refused with file, key and expectation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy_worker.config import load_configuration
from proxy_worker.contract.names import TransportMode
from proxy_worker.contract.signing import SpecificationError, encode_public_key
from proxy_worker.program.settings import SecretError, SettingsError

PUBLIC_KEY = encode_public_key(Ed25519PrivateKey.generate().public_key())
MINIMAL = f'name = "proxy-1"\nstate_dir = "state"\nscheduler_public_keys = ["{PUBLIC_KEY}"]\n'
RUN_PROXY = Path(__file__).parents[1] / "ops" / "docker" / "run-proxy"


def written(folder: Path, text: str = MINIMAL) -> Path:
    path = folder / "proxy.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = MINIMAL + 'secrets_dir = "secrets"\n[datastores]\nds1.path = "ds1"\nds2.network_uri = "nbd://a/{path}"\n'

    read = load_configuration(written(tmp_path, text), {})

    assert read.state_dir == tmp_path / "state"
    assert read.secrets_dir == tmp_path / "secrets"
    assert read.datastores["ds1"].path == tmp_path / "ds1"
    assert read.connections.offered() == {
        "ds1": (TransportMode.DIRECT_STORAGE,),
        "ds2": (TransportMode.NETWORK,),
    }


def test_environment_overrides_every_key(tmp_path: Path) -> None:
    environment = {
        "PROXY_WORKER_NAME": "proxy-9",
        "PROXY_WORKER_MAX_CONCURRENT_TASKS": "4",
        "PROXY_WORKER_TRANSPORT_MODES": '["network"]',
        "PROXY_WORKER_REDIS__URL": "rediss://redis.example:6380/0",
        "UNRELATED": "x",
    }

    read = load_configuration(written(tmp_path), environment)

    assert (read.name, read.max_concurrent_tasks) == ("proxy-9", 4)
    assert read.transport_modes == (TransportMode.NETWORK,)
    assert read.redis.url == "rediss://redis.example:6380/0"


def test_a_containers_name_that_reads_as_a_number_is_its_proxys_name(tmp_path: Path) -> None:
    """As `ops/docker/run-proxy` hands it over: one container in hundreds is called so."""
    line = next(line for line in RUN_PROXY.read_text().splitlines() if line.startswith("PROXY_WORKER_NAME="))
    script = f'hostname() {{ echo 66829628e391; }}; {line}; printf %s "$PROXY_WORKER_NAME"'
    name = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout

    assert load_configuration(written(tmp_path), {"PROXY_WORKER_NAME": name}).name == "66829628e391"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "no TOML"),
        (MINIMAL + "slots = 2\n", "unknown key `slots`"),
        (
            MINIMAL + "max_concurrent_tasks = 0\n",
            "`max_concurrent_tasks`: input should be greater than or equal to 1",
        ),
        (MINIMAL + 'transport_modes = ["carrier_pigeon"]\n', "`transport_modes.0`: input should be"),
        (MINIMAL.replace("proxy-1", "proxy 1"), "`name`: string should match pattern"),
        ('name = "proxy-1"\n', "`state_dir` is missing; `scheduler_public_keys` is missing"),
    ],
)
def test_mistake_is_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_configuration(path, {})
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_configuration(tmp_path / "proxy.toml", {})


def test_variable_for_a_table_that_is_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PROXY_WORKER_NAME__X: `name` is a value, not a table"):
        load_configuration(written(tmp_path), {"PROXY_WORKER_NAME__X": "1"})


def test_public_key_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="Copy it from `scheduler proxy key`"):
        load_configuration(written(tmp_path, MINIMAL.replace(PUBLIC_KEY, "no key")), {})


def test_missing_password_file_is_named(tmp_path: Path) -> None:
    read = load_configuration(written(tmp_path, MINIMAL + '[redis]\ncredential = "redis"\n'), {})
    with pytest.raises(SecretError, match=r"password of Redis in .*/redis: No such file"):
        read.redis_access()
