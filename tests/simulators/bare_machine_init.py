"""The first process of a bare machine: mounts its root, enters it, and runs its sshd until it is killed.

python bare_machine_init.py ROOT SSHD_CONFIG [FOLDER_TO_SHOW…]
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS = 0x00020000, 0x20000000, 0x04000000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
MERGED = ("bin", "sbin", "lib", "lib64", "lib32")


def main() -> int:
    """Wait for the machine's end; it ends when this process does."""
    root, config, shown = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if LIBC.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "a bare machine needs root")
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with the tests, even if they are killed
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return 1
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    mount("--make-rprivate", "/")
    lay_out(root, shown)
    os.chroot(root)
    os.chdir("/")
    subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config])
    while True:  # as an init does: bury whoever is left to it
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1)


def lay_out(root: Path, shown: list[str]) -> None:
    """Give the root this system's programs, and none of what was installed by hand."""
    for name in MERGED:
        if (root / name).is_symlink():
            continue  # from its former life
        if (Path("/") / name).is_symlink():
            (root / name).symlink_to((Path("/") / name).readlink())
        elif (Path("/") / name).is_dir():
            bind(Path("/") / name, root)
    for name in ("usr", "dev", *shown):
        bind(Path("/") / name, root)
    mount("-t", "tmpfs", "none", str(root / "usr/local"))
    (root / "proc").mkdir(exist_ok=True)
    mount("-t", "proc", "proc", str(root / "proc"))


def bind(folder: Path, root: Path) -> None:
    """Show a folder of this machine at the same place, for reading."""
    place = root / folder.relative_to("/")
    place.mkdir(parents=True, exist_ok=True)
    mount("--rbind", str(folder), str(place))
    if folder.name != "dev":
        mount("-o", "remount,bind,ro", str(place))


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
