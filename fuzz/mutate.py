"""Small changes to files, some of which keep checksums and syntax whole to get further in."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
import zlib
from typing import Any

from targets import zipped

LONGEST = 1 << 14  # bytes of an input

NUMBERS = (0, 1, -1, 2, 3, 127, 128, 255, 256, 1 << 15, 1 << 31, 1 << 32, 1 << 40, 1 << 63, 10**400)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "../x", "\0", "\ud800", [], {}, [[]], [None], {"a": 1}),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), *NUMBERS),
)
WORDS = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b",", b";", b"\t", b'"', b'""', b"'", b"\\"),
    *(b"..", b"/", b"=cmd()", b"case", b"score", b"rater_1", b"rater_999999999999", b"roi"),
    *(b"nan", b"1e999", b"-1", b"[" * 3000, b"{", b"}", b"null", b"9" * 5000, b"\xed\xa0\x80"),
    *(b"\x93NUMPY\x03\0", b"PK\3\4", b"PK\1\2", b"PK\5\6", b"\x1f\x8b\x08", b"cos\nsystem\n"),
    *(b"'|O'", b"'<U9999999'", b"'V'", b"(2, -2, -1)", b"(99999999999, 9999999, 9)", b"True"),
)


def mutate(data: bytes, form: str, rng: random.Random) -> bytes:
    """Return another input made of `data`."""
    made = data
    if form == "gzip" and rng.random() < 0.7:
        made = _inside_gzip(data, rng)
    elif form == "zip" and rng.random() < 0.7:
        made = _inside_zip(data, rng)
    elif form == "text" and rng.random() < 0.5:
        made = _inside_json(data, rng)
    if made == data:
        made = _bytes(data, rng)
    return made[:LONGEST]


def _bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) + 1)
        # Headers come first, and are most of what a parser looks at.
        at = rng.randrange(min(len(changed), 400) + 1) if rng.random() < 0.5 else at
        kind = rng.randrange(8)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[at % len(changed)] = rng.randrange(256)
        elif kind == 2:
            del changed[at : at + rng.choice((1, 2, 4, 16, 200))]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
        elif kind == 4:
            word = rng.choice(WORDS)
            changed[at : at + rng.choice((0, len(word)))] = word
        elif kind == 5:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % (1 << (8 * size))
            order = rng.choice(("little", "big"))
            changed[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == 6:
            other = rng.randrange(len(changed) + 1)
            changed[at:at] = changed[other : other + rng.choice((4, 32, 500))]
        else:
            del changed[at:]
    return bytes(changed)


def _inside_gzip(data: bytes, rng: random.Random) -> bytes:
    try:
        content = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data
    content = _bytes(content[:LONGEST], rng)
    if rng.random() < 0.1:
        content += bytes(rng.choice((1 << 12, 1 << 21)))  # a small bomb
    return gzip.compress(content, 6, mtime=0)


def _inside_zip(data: bytes, rng: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name)[:LONGEST] for name in archive.namelist()}
    except Exception:  # zipfile has many ways to say no
        return data
    if not members:
        return data
    name = rng.choice(sorted(members))
    kind = rng.randrange(6)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[rng.choice(("x.npy", "../x.npy", "x", "probabilities.npy", "sums.npy"))] = members[
            name
        ]
    elif kind == 2:
        members[name] = members[rng.choice(sorted(members))]
    else:
        members[name] = _bytes(members[name], rng)
    method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
    return zipped(members, method)


def _inside_json(data: bytes, rng: random.Random) -> bytes:
    try:
        content = json.loads(data)
        return json.dumps(_value(content, rng)).encode()
    except (ValueError, RecursionError):
        return data


def _value(content: Any, rng: random.Random) -> Any:
    """Change one place somewhere in a JSON value."""
    if rng.random() < 0.15 or not isinstance(content, (dict, list)) or not content:
        return rng.choice(VALUES)
    if isinstance(content, list):
        at = rng.randrange(len(content))
        if rng.random() < 0.2:
            return content[:at] + content[at + 1 :]
        return [*content[:at], _value(content[at], rng), *content[at + 1 :]]
    key = rng.choice(sorted(content))
    if rng.random() < 0.15:
        return {name: value for name, value in content.items() if name != key}
    return {**content, key: _value(content[key], rng)}
