"""The sheet opens the repository by itself, from the lines as they are typed and from the code as it is scanned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import zxingcpp

from proxy_worker.repository.credentials import Credential
from proxy_worker.repository.errors import RecoverySheetError
from proxy_worker.repository.keyring import Secrets
from proxy_worker.repository.passphrases import add, wrap
from proxy_worker.repository.recovery_sheet import Recovered, read_sheet, sheet_lines, sheet_page
from proxy_worker.repository.repository import Repository
from tests.repository.making import CHEAP, back_up, make_repository, noise, restore

SCALE = 4
RECOVERED = Recovered("0123456789abcdef" * 2, 7, Secrets.generate())


def scanned(page: str) -> str:
    """What a scanner reads of the page's code: its SVG path is drawn, in pixels, then decoded."""
    [drawn] = re.findall(r'class="qrline"[^>]* d="([^"]+)"', page)
    dark: list[tuple[int, int]] = []
    x = y = 0
    for command, first, second in re.findall(r"([Mmh])(-?[\d.]+)(?: (-?[\d.]+))?", drawn):
        if command == "M":
            x, y = int(first), int(float(second) - 0.5)
        elif command == "m":
            x, y = x + int(first), y + int(second)
        else:
            dark += [(column, y) for column in range(x, x + int(first))]
            x += int(first)
    side = (max(map(max, dark)) + 5) * SCALE
    pixels = bytearray(b"\xff" * side * side)
    for column, row in dark:
        for line in range(row * SCALE, (row + 1) * SCALE):
            pixels[line * side + column * SCALE : line * side + (column + 1) * SCALE] = bytes(SCALE)
    [code] = zxingcpp.read_barcodes(memoryview(pixels).cast("B", (side, side)))
    return str(code.text)


def printed(page: str) -> str:
    """The lines as they stand on the page."""
    return page.partition('<pre id="keys">')[2].partition("</pre>")[0]


def test_lines_and_code_say_the_same() -> None:
    page = sheet_page(RECOVERED, "/backup/main").decode()

    assert read_sheet(printed(page)) == RECOVERED
    assert read_sheet(scanned(page)) == RECOVERED
    assert "/backup/main" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # it loads nothing


def test_case_spaces_and_digits_that_look_like_letters_do_not_matter() -> None:
    typed = "\n\n".join(sheet_lines(RECOVERED)).lower().replace("o", "0").replace("b", "8")

    assert read_sheet(f"  {typed} ") == RECOVERED


def test_a_slip_is_named_by_its_line() -> None:
    lines = sheet_lines(RECOVERED)
    for number, line in enumerate(lines):
        slipped = ("A" if line[3] != "A" else "B").join((line[:3], line[4:]))
        with pytest.raises(RecoverySheetError, match=f"line {number + 1} "):
            read_sheet("\n".join([*lines[:number], slipped, *lines[number + 1 :]]))


@pytest.mark.parametrize("text", ["", "hello", "\n".join(sheet_lines(RECOVERED)[:-1])])
def test_what_is_not_a_whole_sheet_is_refused(text: str) -> None:
    with pytest.raises(RecoverySheetError):
        read_sheet(text)


def test_lines_in_another_order_are_refused() -> None:
    with pytest.raises(RecoverySheetError, match="line 1 "):
        read_sheet("\n".join(reversed(sheet_lines(RECOVERED))))


def test_the_sheet_alone_opens_a_repository_that_lost_its_keys(tmp_path: Path) -> None:
    with make_repository(tmp_path / "repository") as repository:
        back_up(repository, noise(3), run="first")
        assert repository.unlocked
        page = sheet_page(Recovered(repository.id, 1, repository.unlocked), "here").decode()
        store = repository.access.store
    for name in list(store.list("keys/")):
        store.delete(name)

    recovered = read_sheet(printed(page))
    add(store, wrap(recovered.secrets, b"new", repository_id=recovered.repository_id, cost=CHEAP))

    with Repository.open(store, Credential(passphrase=b"new")) as repository:
        assert restore(repository, repository.point("vm-1", "first")) == noise(3)
