"""What proxies are given: secrets by name, Redis by their site's user, certificates of their own, packages."""

from __future__ import annotations

import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy_worker.program.instant_restore import InstantRestoreSettings
from scheduler.configuration import DeploymentSettings, SchedulerConfiguration
from scheduler.deployment import wheelhouse
from scheduler.deployment.errors import MissingSecretError
from scheduler.deployment.given import Reached, RedisLogin, credential_files, redis_login
from scheduler.deployment.layout import Layout
from scheduler.deployment.server import ConnectedDatastore, ProxyServer
from scheduler.deployment.settings import Settings, files, proxy_toml
from scheduler.deployment.survey import Found
from scheduler.deployment.wheelhouse import Kind, needed
from scheduler.pki.authority import Authority
from scheduler.redis_setup.configuring import RedisPlan, configure

SERVER = ProxyServer(host="10.0.0.5", redis_url=None, datastores={"ds1": ConnectedDatastore(path="/mnt/ds1")})
REACHED = Reached(writes=("/backup/main",), credentials=("main", "vc1"))


def files_of(server: ProxyServer, *repositories: str) -> dict[str, str]:
    """By its name, what a proxy beside these repositories is given."""
    login = RedisLogin("redis://127.0.0.1", None, {}, certified=False)
    settings = Settings("p1", "remote", 2, None, "key", server, login, (*repositories, *server.writes))
    return {
        one.path.rpartition("/")[2]: (one.content or b"").decode()
        for one in files(settings, Layout.of("p1", server, privileged=True), {}, systemd=True)
    }


@pytest.mark.parametrize(
    ("folder", "word"),
    [
        ("/fast/my served", '"-/fast/my served"'),
        ("/fast/100%h", '"-/fast/100%%h"'),
        ('/fast/"a\\', r'"-/fast/\"a\\"'),
    ],
)
def test_whatever_a_path_has_in_it_is_one_word_of_the_unit(folder: str, word: str) -> None:
    instant = {"host": "10.1.2.9", "clients": ["10.1.2.0/24"], "folder": folder}
    server = ProxyServer.model_validate(
        {"host": "h", "install_dir": "/srv/my 100%", "writes": [folder], "instant_restore": instant}
    )
    special = files_of(server, folder)["deployed.conf"]
    assert f'\nReadWritePaths="/srv/my 100%%/state" {word} {word} {word}\n' in special
    program, config = '"/srv/my 100%%/current/bin/proxy-worker"', '"/srv/my 100%%/etc/proxy.toml"'
    assert f"\nExecStart={program} run --config {config}\n" in special


def test_one_that_serves_restore_points_may_listen_at_low_ports_and_write_what_vms_do() -> None:
    instant = InstantRestoreSettings.model_validate(
        {"host": "10.1.2.9", "clients": ["10.1.2.0/24"], "folder": "/fast/served"}
    )
    server = SERVER.model_copy(update={"instant_restore": instant})
    written = files_of(server)
    table = tomllib.loads(written["proxy.toml"])["instant_restore"]
    assert InstantRestoreSettings.model_validate(table) == instant
    assert '\nReadWritePaths="/var/lib/proxyfleet-proxy" "-/fast/served"\n' in written["deployed.conf"]
    assert "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n" in written["deployed.conf"]


@pytest.fixture
def configuration(tmp_path: Path) -> SchedulerConfiguration:
    """A scheduler whose Redis has been configured with TLS and users."""
    made = SchedulerConfiguration(
        state_dir=tmp_path / "state",
        secrets_dir=tmp_path,
        deployment=DeploymentSettings(redis_kits_dir=tmp_path / "redis/kits"),
    )
    made.state_dir.mkdir()
    plan = RedisPlan(out=tmp_path / "redis", sites=("primary", "remote"), host="redis.example")
    configure(plan, Authority.make(made.pki_dir, name="fleet"))
    return made


def test_each_proxy_connects_as_its_sites_user_with_a_certificate_of_its_own(
    configuration: SchedulerConfiguration, tmp_path: Path
) -> None:
    login = redis_login(configuration, SERVER, name="p1", site="remote", has=None)
    assert (login.url, login.username) == ("rediss://redis.example:6379/0", "site-remote")
    kit = tmp_path / "redis/kits/site-remote"
    assert login.files["redis"] == (kit / "redis").read_bytes()
    assert login.files["redis-certificate.pem"] != (kit / "redis-certificate.pem").read_bytes()
    settings = Settings("p1", "remote", 2, None, "key", SERVER, login, ())
    table = tomllib.loads(proxy_toml(settings, Layout.of("p1", SERVER, privileged=True)))["redis"]
    assert table["certificate"] == "/etc/proxyfleet-proxy/secrets/redis-certificate.pem"

    has = login.files["redis-certificate.pem"].decode()
    again = redis_login(configuration, SERVER, name="p1", site="remote", has=has)
    assert (again.certified, "redis-certificate.pem" in again.files) == (True, False)
    Authority(configuration.pki_dir).revoke("p1")
    renewed = redis_login(configuration, SERVER, name="p1", site="remote", has=has)
    assert renewed.files["redis-certificate.pem"].decode() != has


def test_no_proxy_gets_the_schedulers_own_user(configuration: SchedulerConfiguration) -> None:
    redis = configuration.redis.model_copy(update={"username": "scheduler"})
    without_kits = configuration.model_copy(update={"redis": redis, "deployment": DeploymentSettings()})
    with pytest.raises(MissingSecretError, match=r"whose rights no proxy should have.*redis_kits_dir"):
        redis_login(without_kits, SERVER, name="p1", site="primary", has=None)


def test_a_passphrase_is_given_only_by_name(configuration: SchedulerConfiguration, tmp_path: Path) -> None:
    (tmp_path / "main.passphrase").write_text("reads everything")
    (tmp_path / "vc1.password").write_text("of the vCenter")
    assert set(credential_files(configuration, None, REACHED)) == {"vc1.password"}
    assert set(credential_files(configuration, ["main"], REACHED)) == {"main.passphrase"}
    (tmp_path / "main.key").write_text("adds only")
    assert set(credential_files(configuration, None, REACHED)) == {"main.key", "vc1.password"}
    assert set(credential_files(configuration, ["main"], REACHED)) == {"main.key"}
    with pytest.raises(MissingSecretError, match=r"has no other\.key, other\.passphrase or other\.password"):
        credential_files(configuration, ["other"], REACHED)


def test_the_key_to_an_object_store_goes_with_what_opens_the_repository(
    configuration: SchedulerConfiguration, tmp_path: Path
) -> None:
    (tmp_path / "main.s3").write_text("id\nsecret\n")
    with pytest.raises(MissingSecretError):
        credential_files(configuration, ["main"], REACHED)
    (tmp_path / "main.key").write_text("adds only")
    for names in (None, ["main"]):
        assert set(credential_files(configuration, names, REACHED)) == {"main.key", "main.s3"}


def test_slots_are_proposed_from_cores_and_memory() -> None:
    def slots(cores: int, memory_gib: float) -> int:
        return Found.model_construct(cores=cores, memory_bytes=int(memory_gib * (1 << 30))).slots

    assert [slots(2, 16), slots(8, 4), slots(1, 0.5), slots(4, 7.7)] == [4, 4, 1, 8]


def test_the_locked_packages_are_those_that_the_machines_python_needs() -> None:
    lock = (
        "# made by a tool\na==1 \\\n    --hash=sha256:aa\n"
        "b==2 ; python_full_version < '3.11.3' \\\n    --hash=sha256:bb\n"
        "c==3 ; sys_platform == 'win32' \\\n    --hash=sha256:cc\n"
    )
    found = [needed(lock, Kind("x86_64", version, (2, 36))) for version in ((3, 11, 2), (3, 12, 1))]
    assert found[0] == "a==1 \\\n    --hash=sha256:aa\nb==2 \\\n    --hash=sha256:bb\n"
    assert found[1] == "a==1 \\\n    --hash=sha256:aa\n"


def test_wheels_for_an_older_glibc_only() -> None:
    platforms = Kind("aarch64", (3, 11, 2), (2, 19)).platforms
    assert platforms[:3] == ("manylinux_2_19_aarch64", "manylinux_2_18_aarch64", "manylinux_2_17_aarch64")


def test_two_deployments_at_once_download_packages_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, both, downloads = Kind("x86_64", (3, 11, 2), (2, 36)), threading.Barrier(2), []

    def download(folder: Path, *_: object) -> None:
        downloads.append(folder)
        folder.mkdir(parents=True)
        (folder / "one-1-py3-none-any.whl").touch()
        (folder / ".complete").touch()

    def deployed() -> str:
        both.wait(120)
        return wheelhouse.packed(tmp_path / "wheelhouse", kind).release

    monkeypatch.setattr(wheelhouse, "_download", download)
    with ThreadPoolExecutor() as pool:
        first, second = [one.result(120) for one in [pool.submit(deployed), pool.submit(deployed)]]
    assert (first == second, len(downloads)) == (True, 1)


@pytest.mark.parametrize("folder", ["/", "//", "/opt", "/./opt/", "/usr/local", "/srv/../etc", "/srv/proxy/.."])
def test_no_folder_of_the_system_is_a_proxys_own(folder: str) -> None:
    with pytest.raises(ValidationError, match="expected a folder for the proxy alone"):
        ProxyServer(host="10.0.0.5", install_dir=folder)
    assert ProxyServer(host="10.0.0.5", install_dir="/srv/proxy/").install_dir == "/srv/proxy"
