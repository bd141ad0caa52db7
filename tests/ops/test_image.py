"""The rules that the container image and the compose file keep to, as far as that shows without building them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECRET = re.compile(r"PASSW|SECRET|TOKEN|_KEY\b", re.IGNORECASE)


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Dockerfile, and what it says."""
    lines = (ROOT / "ops/docker/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            yield name, rest


def services() -> dict[str, str]:
    """The text of each service of the compose file."""
    text = (ROOT / "docker-compose.yml").read_text()
    below = text.partition("\nservices:\n")[2].partition("\nnetworks:\n")[0]
    parts = re.split(r"^  ([\w-]+):$", below, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_base_images_are_of_a_named_version() -> None:
    stages: set[str] = set()
    for name, rest in instructions():
        if name == "FROM":
            image, _, stage = rest.partition(" AS ")
            assert image in stages or re.fullmatch(r"\S+:\d[\w.-]*(@sha256:[0-9a-f]{64})?", image), image
            stages.add(stage)


def test_every_package_is_locked_by_its_hash() -> None:
    installs = [part for name, rest in instructions() if name == "RUN" for part in rest.split("&&")]
    for part in (part for part in installs if " install " in part and "pip" in part):
        assert "--require-hashes" in part or "--no-index" in part, part
    assert not any(re.search(r"curl|wget|git clone", part) for part in installs)


def test_the_image_runs_as_nobody_special_and_nothing_comes_after() -> None:
    names = [(name, rest) for name, rest in instructions()]
    last = max(index for index, (name, _) in enumerate(names) if name == "USER")
    assert names[last][1] not in {"root", "0"}
    assert {name for name, _ in names[last:]} <= {"USER", "ENTRYPOINT", "CMD", "WORKDIR"}


def test_only_what_is_named_gets_into_the_image_and_no_secret() -> None:
    assert (ROOT / ".dockerignore").read_text().startswith("*\n"), "all is left out but what is named"
    for name, rest in instructions():
        assert name not in {"ADD", "ARG", "VOLUME"}, f"{name} {rest}"
        assert not (name == "ENV" and SECRET.search(rest)), rest
        assert not (name == "COPY" and ("." in rest.split() or re.search(r"\.(pem|key|passphrase)\b", rest))), rest
    from_stages = [rest for name, rest in instructions() if name == "COPY" and "--from" in rest]
    assert from_stages == ["--from=build /opt/proxyfleet /opt/proxyfleet"], "no tools of the build"


def test_every_service_gives_up_what_it_does_not_need() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    hardened = text.partition("x-hardened: &hardened\n")[2].partition("\n\n")[0]
    for rule in ("read_only: true", "cap_drop: [ALL]", '"no-new-privileges:true"'):
        assert rule in hardened
    assert text.count("<<: *hardened") == 2, "Redis, and the fleet's own"
    assert set(services()) == {"setup", "redis", "scheduler", "flower", "proxy-primary", "proxy-remote"}
    for name, service in services().items():
        assert re.search(r"<<: \*(hardened|fleet|proxy)\b", service), name
        taken = r"privileged|cap_add|docker\.sock|network_mode: host|pid:|read_only: false|user: \"?(0|root)\b"
        assert not re.search(taken, service), name
        ports = re.findall(r"ports: \[(.*)\]", service)
        assert all(port.strip('" ').startswith("127.0.0.1:") for port in ports), name


def test_secrets_are_files_and_no_environment_variables() -> None:
    for name, service in services().items():
        variables = re.findall(r"^      (\w+): (.*)$", service, flags=re.MULTILINE)
        for variable, value in variables:
            assert not SECRET.search(variable) or value.startswith("/run/secrets"), f"{name}: {variable}"
