"""A fleet file is validated whole; each problem names the declaration, the key, and what is expected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler.fleet.models import Fleet, ModeChoice
from scheduler.fleet.reading import FleetFileError, NoSuchFleetFileError, parse_fleet, read_fleet
from scheduler.fleet.references import absent_proxies, warnings_of

COMPLETE = """
[[site]]
name = "primary"

[[datastore]]
name = "ds1"
site = "primary"

[[repository]]
name = "main"
location = "/backup/main"
site = "primary"
credential = "main"

[[proxy]]
name = "proxy-1"
site = "primary"
transport_mode = "network"
datastores = ["ds1"]

[[vm]]
name = "db01"
disks = [{ key = "scsi0:0", nbd_uri = "nbd://esx1/db01" }]

[[job]]
name = "nightly"
vms = ["web*", "db01"]
repository = "main"
schedule = { cron = "0 22 * * *", timezone = "Europe/Berlin" }
retries = { count = 1, wait_minutes = 0.5 }
"""


def problem_of(text: str) -> str:
    with pytest.raises(FleetFileError) as caught:
        parse_fleet(text, "fleet.toml")
    return str(caught.value)


def test_a_complete_file_is_read_with_defaults() -> None:
    fleet = parse_fleet(COMPLETE, "fleet.toml")
    assert fleet.job[0].schedule is not None
    assert fleet.job[0].schedule.timezone == "Europe/Berlin"
    assert fleet.job[0].level == "optimal"
    assert fleet.proxy[0].transport_mode is ModeChoice.NETWORK
    assert fleet.repository[0].proxies is None


def test_an_empty_file_is_an_empty_fleet() -> None:
    assert parse_fleet("", "fleet.toml") == Fleet()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[[job]]", "[[jobs]]", "fleet.toml: unknown key 'jobs'; did you mean 'job'?"),
        ("location =", "locaton =", "repository 'main': unknown key 'locaton'; did you mean 'location'?"),
        ("count = 1", "cuont = 1", "job 'nightly', key 'retries': unknown key 'cuont'; did you mean 'count'?"),
        ("count = 1", "xyz = 1", "unknown key 'xyz'; known keys are count, wait_minutes"),
        ("count = 1", 'count = "1"', "job 'nightly', key 'retries.count': expected a whole number, got '1'"),
        ("count = 1", "count = -1", "key 'retries.count': expected greater than or equal to 0, got -1"),
        ('vms = ["web*", "db01"]', 'vms = "web*"', "job 'nightly', key 'vms': expected a list in brackets"),
        ('vms = ["web*", "db01"]', "vms = []", "job 'nightly': expected VMs in 'vms' or 'select', got neither"),
        ('vms = ["web*", "db01"]', "", "job 'nightly': expected VMs in 'vms' or 'select', got neither"),
        ('"network"', '"netwrok"', "proxy 'proxy-1', key 'transport_mode': expected 'automatic', "),
        ('"nbd://esx1/db01"', '"http://esx1"', "vm 'db01', key 'disks[0].nbd_uri': expected an nbd://"),
        ('"/backup/main"', '"proxyfleet://vault"', "key 'location': expected proxyfleet://HOST:PORT/NAME, got"),
        ('"/backup/main"', '"backup"', "repository 'main', key 'location': expected an absolute path"),
        ('name = "ds1"', 'name = "ds 1"', "datastore 'ds 1', key 'name': expected a name of letters, digits"),
        ('name = "ds1"', "", "[[datastore]] number 1: the key 'name' is missing"),
        ("0 22 * * *", "0 25 * * *", "key 'schedule.cron': expected five cron fields"),
        ("0 22 * * *", "22:00", "wrong number of fields"),
        ("Europe/Berlin", "Berlin", "key 'schedule.timezone': expected a time zone such as 'Europe/Berlin'"),
        ('repository = "main"', 'repository = "mian"', "repository 'mian' is not declared; did you mean 'main'?"),
        (
            'datastores = ["ds1"]',
            'datastores = ["x"]',
            "datastore 'x' is not declared; expected ds1",
        ),
        ('[[site]]\nname = "primary"', "", "expected a [[site]] of that name"),
        ('name = "ds1"\nsite = "primary"', 'name = "ds1"\nsite = "primry"', "did you mean 'primary'?"),
        ("[[site]]", "[site]", "fleet.toml: write [[site]], in two pairs of brackets"),
        ("[[site]]", '[[site]]\nname = "primary"\n[[site]]', "fleet.toml: site 'primary': declared 2 times"),
        ("[[site]]", "[[site", "it is not valid TOML"),
    ],
)
def test_a_problem_names_its_place_and_what_is_expected(old: str, new: str, expected: str) -> None:
    assert old in COMPLETE
    assert expected in problem_of(COMPLETE.replace(old, new, 1))


VSPHERE = """
[[site]]
name = "primary"

[[vcenter]]
name = "vc1"
host = "vcenter.example"
user = "backup@vsphere.local"
credential = "vc1"
thumbprint = "AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB"
site = "primary"

[[datastore]]
name = "fast"
kind = "vsphere"
vcenter = "vc1"
vsphere_name = "Fast Store (1)"
site = "primary"

[[repository]]
name = "main"
location = "/backup/main"
site = "primary"

[[job]]
name = "nightly"
repository = "main"
quiesce = "require"
exclude = [{ vm = "*-test" }, { tag = "Backup/never" }]
exclude_disks = ["independent", "db*/scsi0:1", ">500GiB"]

[[job.select]]
folder = "DC0/Linux"
vcenter = "vc1"

[[job.select]]
tag = "Backup/gold"
cluster = "C0"
"""


def test_a_job_selects_by_tables_and_a_vcenter_is_pinned() -> None:
    fleet = parse_fleet(VSPHERE, "fleet.toml")
    (job,) = fleet.job
    assert [str(selector) for selector in job.select] == [
        "folder 'DC0/Linux' and vcenter 'vc1'",
        "cluster 'C0' and tag 'Backup/gold'",
    ]
    assert job.quiesce == "require"
    assert fleet.vcenter[0].max_sessions == 4
    assert fleet.datastore[0].vsphere_name == "Fast Store (1)"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'folder = "DC0/Linux"',
            'fodler = "x"',
            "job 'nightly', key 'select[0]': unknown key 'fodler'; did you mean",
        ),
        (
            '{ vm = "*-test" }',
            "{}",
            "job 'nightly', key 'exclude[0]': expected at least one condition, got none: vm,",
        ),
        ('"independent"', '"indep endent"', "key 'exclude_disks[0]': expected a disk's key such as 'scsi0:1'"),
        ('"independent"', '"bogus"', "key 'exclude_disks[0]': expected a disk's key such as 'scsi0:1'"),
        ('tag = "Backup/gold"', 'tag = "gold"', "key 'select[1].tag': expected a tag with its category"),
        ('">500GiB"', '">500GB"', "or a size such as '>500GiB'"),
        ('"require"', '"always"', "key 'quiesce': expected 'prefer', 'require' or 'never', got 'always'"),
        ('vcenter = "vc1"\n\n', 'vcenter = "vc2"\n\n', "key 'select[0].vcenter': vcenter 'vc2' is not declared"),
        ('kind = "vsphere"\nvcenter = "vc1"', 'kind = "vsphere"', "datastore 'fast': the key 'vcenter' is missing"),
        ('kind = "vsphere"', "", "datastore 'fast': 'vcenter' and 'vsphere_name' are for kind 'vsphere'"),
        ('"AB:AB:', '"AC:', "vcenter 'vc1', key 'thumbprint': expected a SHA-1 or SHA-256 thumbprint"),
        ('credential = "vc1"', "", "vcenter 'vc1': the key 'credential' is missing"),
        (
            'thumbprint = "',
            'ca_file = "/etc/ca.pem"\nthumbprint = "',
            "expected 'thumbprint' or 'ca_file', got both",
        ),
        (
            'credential = "vc1"',
            'ca_file = "ca.pem"\ncredential = "vc1"',
            "key 'ca_file': expected an absolute path",
        ),
        (
            "[[repository]]",
            '[[datastore]]\nname = "Other"\nkind = "vsphere"\nvcenter = "vc1"\nvsphere_name = "Fast Store (1)"\n'
            'site = "primary"\n[[repository]]',
            "vcenter 'vc1': its datastore 'Fast Store (1)' declared 2 times",
        ),
    ],
)
def test_a_problem_with_vsphere_names_its_place_too(old: str, new: str, expected: str) -> None:
    assert old in VSPHERE
    assert expected in problem_of(VSPHERE.replace(old, new, 1))


LINES = r"/x\nExecStartPre=+/bin/touch /x"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("install_dir", f'"/srv{LINES}"'),
        ("writes[0]", f'["{LINES}"]'),
        ("instant_restore", f'{{ host = "h", clients = ["10.0.0.0/8"], folder = "/fast{LINES}" }}'),
    ],
)
def test_no_path_brings_a_line_of_its_own_into_what_root_installs(key: str, value: str) -> None:
    said = "expected no line breaks or other control characters, got "
    proxy = f'[[proxy]]\nname = "p"\n[proxy.server]\nhost = "h"\n{key.removesuffix("[0]")} = {value}\n'
    assert f"proxy 'p', key 'server.{key}': {said}" in problem_of(COMPLETE + proxy)
    assert f"repository 'main', key 'location': {said}" in problem_of(COMPLETE.replace("/backup/main", LINES))


def test_all_problems_are_listed_at_once() -> None:
    text = COMPLETE.replace("count = 1", "count = true").replace('"/backup/main"', "7")
    assert problem_of(text).splitlines() == [
        "fleet.toml: 2 problems",
        "  repository 'main', key 'location': expected a text in quotes, got 7",
        "  job 'nightly', key 'retries.count': expected a whole number, got True",
    ]


def test_a_disk_declared_twice_is_a_problem() -> None:
    twice = "[" + ", ".join(['{ key = "scsi0:0", nbd_uri = "nbd://esx1/db01" }'] * 2) + "]"
    text = COMPLETE.replace('[{ key = "scsi0:0", nbd_uri = "nbd://esx1/db01" }]', twice)
    assert "vm 'db01': disk 'scsi0:0' declared 2 times" in problem_of(text)


def test_names_and_patterns_that_fit_no_proxy_are_told_and_allowed() -> None:
    named = COMPLETE.replace('credential = "main"', 'credential = "main"\nproxies = ["server", "proxy-*"]')
    named += """
        [[job]]
        name = "away"
        kind = "replication"
        vms = ["web*"]
        proxies = ["proxy-1", "proxy-9"]
        preferred_proxies = ["rack7-*"]
        replica = { datastore = "ds1", proxies = ["remote-*"] }
    """
    fleet = parse_fleet(named, "x")
    told = "is declared or has registered; it counts once one does"
    assert absent_proxies(fleet, registered=["rack7-1"]) == [
        f"repository 'main', key 'proxies': no proxy 'server' {told}",
        f"job 'away', key 'proxies': no proxy 'proxy-9' {told}",
        f"job 'away', key 'replica.proxies': no proxy 'remote-*' {told}",
    ]


def test_what_replicas_in_a_vcenter_cannot_begin_with_is_a_problem() -> None:
    named = (
        COMPLETE
        + """
        [[datastore]]
        name = "dr"
        kind = "vsphere"
        vcenter = "vc-dr"
        site = "primary"
        [[vcenter]]
        name = "vc-dr"
        host = "vc.example.org"
        user = "u"
        credential = "vc"
        site = "primary"
        [[job]]
        name = "away"
        kind = "replication"
        vms = ["web*"]
        replica = { datastore = "dr", seed = "main", mapped = { web01 = "web01-standby" } }
    """
    )
    told = "datastore 'dr' is a vCenter's, where replicas are made anew; expected no such key"
    problems = problem_of(named)
    assert f"job 'away', key 'replica.mapped': {told}" in problems
    assert f"job 'away', key 'replica.seed': {told}" in problems


@pytest.mark.parametrize("mode", ["automatic", "virtual_appliance", "network"])
@pytest.mark.parametrize("host", ["vault.example.org", "VAULT.example.org", "10.0.0.9", "elsewhere"])
def test_the_machine_of_a_hardened_repository_is_a_proxy_in_network_mode_only(mode: str, host: str) -> None:
    text = f"""
        site = [{{ name = "s" }}]
        [[repository]]
        name = "vault"
        location = "proxyfleet://vault.example.org/vault"
        host = "10.0.0.9"
        site = "s"
        hardened = true
        [[proxy]]
        name = "p"
        transport_mode = "{mode}"
        server.host = "{host}"
    """
    if mode == "network" or host == "elsewhere":
        (warning,) = warnings_of(parse_fleet(text, "fleet.toml"))
        assert warning.startswith("repository 'vault' is hardened and has no 'collect'")
    else:
        assert problem_of(text) == (
            f"fleet.toml: proxy 'p', key 'transport_mode': '{mode}' is not possible on the machine of hardened "
            "repository 'vault'; expected 'network'"
        )


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFleetFileError, match="scheduler export"):
        read_fleet(str(tmp_path / "fleet.toml"))


def test_a_blank_file_is_refused_because_it_would_remove_everything(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(" \n")
    with pytest.raises(FleetFileError, match="would remove everything"):
        read_fleet(str(path))
    path.write_text("# nothing any more\n")
    assert read_fleet(str(path)) == Fleet()


def test_a_folder_or_bytes_instead_of_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(FleetFileError, match=os.strerror(21)):
        read_fleet(str(tmp_path))
    (tmp_path / "fleet.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FleetFileError, match="not UTF-8"):
        read_fleet(str(tmp_path / "fleet.toml"))
