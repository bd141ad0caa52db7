"""VMware's dictionary files: lines of `key = "value"`, as in a VMX and in the head of a VMDK descriptor.

Sources: the files that VMware products write. Keys are compared without regard to case; a value's quotes may
be missing; `|22` stands for the character with that hexadecimal code; `#` begins a comment line; the file
names its own character set in `.encoding` (VMX) or `encoding` (descriptor).
"""

from __future__ import annotations

import codecs
import re

# Written so that no line, however long, takes more than one pass: these files may be forged.
_LINE = re.compile(r"""([A-Za-z0-9_.:\-]+)[ \t]*=[ \t]*(?:"([^"]*)"|([^"\s](?:[^"]*[^"\s])?))""")
_ENCODING = re.compile(
    rb"""^[ \t]*\.?encoding[ \t]*=[ \t]*"?([A-Za-z0-9_.:\-]{1,40})"?[ \t\r]*$""", re.IGNORECASE | re.MULTILINE
)
_ESCAPE = re.compile(r"\|([0-9A-Fa-f]{2})")
_MULTIBYTE = {
    "utf-8",
    "gbk",
    "gb18030",
    "gb2312",
    "big5",
    "shift_jis",
    "euc_jp",
    "euc_kr",
    "cp932",
    "cp936",
    "cp949",
}
_SINGLE_BYTE = ("cp125", "iso8859", "ascii", "koi8", "mac")


def decode(data: bytes) -> str:
    """The text of a file, in the character set that it names, else UTF-8. Raises ValueError that says why not."""
    if b"\0" in data:
        raise ValueError("it contains zero bytes, so it isn't a text file, or is damaged")
    declared = _ENCODING.search(data)
    name = declared[1].decode("ascii") if declared else "utf-8"
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"its character set {name} is unknown") from None
    if codec not in _MULTIBYTE and not codec.startswith(_SINGLE_BYTE):
        raise ValueError(f"its character set {name} isn't one that VMware writes")
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} isn't {name}") from None


def parse_line(line: str) -> tuple[str, str] | None:
    """A line's key in lower case and its value, or None when it isn't of that form."""
    matched = _LINE.fullmatch(line.strip())
    if matched is None:
        return None
    value = matched[2] if matched[2] is not None else matched[3]
    return matched[1].lower(), _ESCAPE.sub(lambda code: chr(int(code[1], 16)), value)


def is_blank(line: str) -> bool:
    """Whether a line says nothing: empty or a comment."""
    stripped = line.strip()
    return not stripped or stripped.startswith("#")


def is_true(value: str) -> bool:
    """How VMware reads a truth value; anything else is false."""
    return value.strip().lower() in {"true", "yes", "on", "1"}
