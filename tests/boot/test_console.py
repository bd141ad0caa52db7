"""What counts as a login prompt on a console, and what says that there will be none."""

from __future__ import annotations

import re

import pytest

from proxy_worker.boot.console import DEFAULT_PROMPT, ConsoleWatch, Said


def watch(prompt: str = DEFAULT_PROMPT) -> ConsoleWatch:
    return ConsoleWatch(re.compile(prompt, re.MULTILINE))


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        (b"\r\nDebian GNU/Linux 12 web01 ttyS0\r\n\r\nweb01 login: ", "web01 login:"),
        (b"\x1b[?2004h\x1b[1mdb-1.example.org\x1b[0m login: ", "db-1.example.org login:"),
        (b"[   12.1] random: crng init done\r\n\r\nUbuntu 24.04 LTS u ttyS0\r\n\r\nu login: ", "u login:"),
    ],
)
def test_login_prompts_as_distributions_have_them(said: bytes, prompt: str) -> None:
    assert watch().feed(said) == Said(prompt, is_prompt=True)


def test_a_prompt_may_come_byte_by_byte() -> None:
    console = watch()
    said = [console.feed(bytes([byte])) for byte in b"\x1b[0mweb\x1b[1m01 login:"]
    assert said[-1] == Said("web01 login:", is_prompt=True)
    assert not any(said[:-1])


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b"[    1.2] Kernel panic - not syncing: VFS: no root\r\n", "Kernel panic - not syncing: VFS: no root"),
        (b"error: unknown filesystem.\r\n\x1b[0mgrub rescue> ", "grub rescue>"),
        (b"ALERT!  UUID=1 does not exist.\r\n(initramfs) ", "(initramfs)"),
        (
            b"\r\nYou are in emergency mode. After logging in, type",
            "You are in emergency mode. After logging in, type",
        ),
        (b"Booting from Hard Disk...\r\nNo bootable device.\r\n", "No bootable device."),
    ],
)
def test_what_comes_instead_of_a_prompt(said: bytes, instead: str) -> None:
    assert watch().feed(said) == Said(instead, is_prompt=False)


def test_what_only_looks_like_it_is_waited_past() -> None:
    console = watch()
    for said in (
        b"Starting systemd-logind.service - User Login Management...\r\n",
        b"login: \r\n",
        b"# grub> \r\n",
    ):
        assert console.feed(said) is None
    assert console.last_line() == "# grub>"


def test_another_prompt_is_waited_for_when_asked_to() -> None:
    console = watch("^ready$")
    assert console.feed(b"web01 login: \r\nnot ready\r\n") is None
    assert console.feed(b"ready\r\n") == Said("ready", is_prompt=True)


def test_memory_does_not_grow_with_what_is_said() -> None:
    console = watch()
    for _ in range(1000):
        assert console.feed(b"tick tock " * 100) is None
    assert console.feed(b"\nweb01 login: ") == Said("web01 login:", is_prompt=True)
