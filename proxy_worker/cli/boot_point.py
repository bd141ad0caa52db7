"""`proxy-worker boot-point`: proof that a VM starts from a restore point."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy_worker.boot.console import DEFAULT_PROMPT
from proxy_worker.boot.machine import MEMORY_MIB, MOST_MEMORY_MIB, DiskBus, Firmware
from proxy_worker.cli.opening import Opening
from proxy_worker.cli.repository_options import LocationOption, PassphraseFile, PointOption, ReadKeyFile, VmOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def boot_point(
    *,
    repository: LocationOption,
    vm: VmOption,
    passphrase_file: PassphraseFile = None,
    read_key_file: ReadKeyFile = None,
    point: PointOption = None,
    prompt: Annotated[
        str, typer.Option(metavar="REGEX", help="What is waited for on the first serial port.")
    ] = DEFAULT_PROMPT,
    minutes: Annotated[float, typer.Option(metavar="MINUTES", min=0.01, help="How long it is waited for.")] = 5.0,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MIB",
            min=64,
            help=f"The VM's memory; its own, at most {MOST_MEMORY_MIB}, or {MEMORY_MIB} if that isn't known.",
        ),
    ] = None,
    firmware: Annotated[
        Firmware | None, typer.Option(help="What starts it; its own, or a BIOS if that isn't known.")
    ] = None,
    disk_bus: Annotated[
        DiskBus | None, typer.Option(help="How it reaches its disks; what is nearest to its own controllers.")
    ] = None,
    console: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep what it says here; boot-POINT.log in this folder by default."),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep what it writes here until the end; where temporary files go by default."
        ),
    ] = None,
    no_kvm: Annotated[
        bool, typer.Option("--no-kvm", help="Emulate its processor: slow, and works anywhere.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Start a Linux VM from a restore point in QEMU, and wait for its login prompt; exit code 1 if there is none.

    Nothing is restored, and the repository isn't changed: what the VM writes is forgotten. It has no network. Its
    firmware, processors, memory and disk controllers are those of its VMX, as far as QEMU has them. It must show a
    login prompt on its first serial port: `console=ttyS0` on its kernel's command line does, and systemd from 254
    on does without.

    \b
    Examples:
      proxy-worker boot-point --repository /backup/main --read-key-file read.key --vm web01
      proxy-worker boot-point --repository /backup/main --read-key-file read.key --vm db01 \\
          --minutes 10 --prompt 'database ready' --json
    """
    opening = Opening(repository, passphrase_file=passphrase_file, key_file=read_key_file)
    from proxy_worker.cli.booting_point import boot  # noqa: PLC0415 - loaded while that works
    from proxy_worker.node.booting import Wishes  # noqa: PLC0415 - the same

    wishes = Wishes(
        prompt=prompt,
        limit_s=minutes * 60,
        memory_mib=memory,
        firmware=firmware,
        bus=disk_bus,
        overlay=overlay,
        use_kvm=not no_kvm,
    )
    boot(opening, vm=vm, point=point, wishes=wishes, console=console, as_json=as_json)
