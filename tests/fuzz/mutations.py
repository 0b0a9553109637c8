"""Random changes to files, which also repair checksums so that readers get further into the file."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator

NUMBERS = [
    struct.pack(code, value)
    for code in ("<I", ">I", "<H", ">H", "<Q", ">Q", "<i", ">i")
    for value in (0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 31, 1 << 16)
    if value < 1 << (8 * struct.calcsize(code) - (code[1] == "i"))
]
TOKENS = [
    *(b"null", b"[]", b"{}", b"-1", b"1e400", b"NaN", b'"\\u0000"', b'"\\ud800"', b"true", b"0.5", b'""'),
    *(b"9" * 30, b"[" * 3000, b"-" * 3000, b"'|O'", b"'<U99999999'", b"(1" + b"0" * 18 + b",)", b"\x1b[2J"),
    *(b"'<f8'", b"True", b"(-1,)", b"()", b"\n", b"\r\n", b"../", b"/dev/zero", b"%s", b"cos\nsystem\n"),
]


def mutate(rng: Rng, data: bytes, others: Sequence[bytes]) -> bytes:
    """One to six changes; inside zip files and PNG chunks often with their checksums corrected."""
    if rng.random() < 0.6:
        if data.startswith(b"{"):
            return _mutated_json(rng, data)
        if data[4:9] == b"\0\0\0\0{":  # safetensors
            (length,) = struct.unpack("<Q", data[:8])
            header = _mutated_json(rng, data[8 : 8 + length])
            return struct.pack("<Q", len(header)) + header + data[8 + length :]
        if data.startswith(b"PK\3\4"):
            return _mutated_zip(rng, data, others)
        if data.startswith(b"\x89PNG"):
            return _mutated_png(rng, data)
    for _ in range(rng.integers(1, 7)):
        data = _changed(rng, data, others)
    return data


def _changed(rng: Rng, data: bytes, others: Sequence[bytes]) -> bytes:
    kind = rng.integers(9)
    # Headers are at the beginning more often than not.
    reach = min(len(data), 1 << int(rng.integers(3, 18)))
    at = int(rng.integers(reach)) if reach else 0
    length = min(len(data) - at, int(2 ** (rng.random() * 10)))
    if kind == 0 and data:
        flipped = data[at] ^ (1 << int(rng.integers(8)))
        return data[:at] + bytes([flipped]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        other = others[int(rng.integers(len(others)))]
        begin = int(rng.integers(len(other) + 1))
        return data[:at] + other[begin : begin + int(2 ** (rng.random() * 12))] + data[at:]
    if kind == 3:
        return data[: at + length] * 2 + data[at + length :]
    if kind in (4, 5):
        number = NUMBERS[rng.integers(len(NUMBERS))]
        return data[:at] + number + data[at + len(number) :]
    if kind == 6:
        return data[:at] + bytes(length) + data[at + length :]
    if kind == 7:
        token = TOKENS[rng.integers(len(TOKENS))]
        return data[:at] + token + data[at + (len(token) if rng.random() < 0.5 else 0) :]
    return data[:at] + rng.bytes(length) + data[at + length :]


ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 0.5, 1e308, 10**30, 1 << 63, "", "a" * 9999, "\0", "\ud800", "\x1b[2J", "../../x"),
    *([], [[]], {}, {"a": {}}, [0] * 9, [1 << 40, 1 << 40], "F64", "sha256:" + "0" * 64, float("nan")),
]


def _mutated_json(rng: Rng, text: bytes) -> bytes:
    """JSON with one value or key replaced or removed."""
    document = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def collect(container: Any) -> None:
        for key in container if isinstance(container, dict) else range(len(container)):
            places.append((container, key))
            if isinstance(container[key], (dict, list)):
                collect(container[key])

    collect(document)
    container, key = places[rng.integers(len(places))]
    odd = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    choice = rng.random()
    if choice < 0.1:
        del container[key]
    elif choice < 0.2 and isinstance(container, dict):
        container[str(odd)] = container.pop(key)
    else:
        container[key] = odd
    return json.dumps(document).encode()


def _mutated_zip(rng: Rng, data: bytes, others: Sequence[bytes]) -> bytes:
    """A member changed, removed, renamed, or compressed otherwise."""
    archive = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(archive, "w") as after:
        infos = before.infolist()
        chosen = int(rng.integers(len(infos)))
        choice = rng.random()
        for index, info in enumerate(infos):
            name, content, method = info.filename, before.read(info), info.compress_type
            if index == chosen and choice < 0.1:
                continue
            if index == chosen and choice < 0.2:
                name = infos[rng.integers(len(infos))].filename + "\x1b"[: int(rng.integers(2))]
            elif index == chosen and choice < 0.3:
                method = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA][rng.integers(3)]
            elif index == chosen and choice < 0.7 and content.startswith(b"{"):
                content = _mutated_json(rng, content)
            elif index == chosen:
                for _ in range(rng.integers(1, 4)):
                    content = _changed(rng, content, others)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two members of one name
                after.writestr(name, content, method)
    return archive.getvalue()


def _mutated_png(rng: Rng, data: bytes) -> bytes:
    """Chunks changed, repeated or removed, each with its checksum."""
    at, parts = 8, []
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = int(rng.integers(len(parts)))
    kind, content = parts[chosen]
    choice = rng.random()
    if choice < 0.1:
        del parts[chosen]
    elif choice < 0.2:
        parts.insert(chosen, parts[rng.integers(len(parts))])
    elif choice < 0.3 and kind in (b"zTXt", b"iTXt", b"tEXt"):
        parts[chosen] = (b"zTXt", b"npstyle\0\0" + zlib.compress(bytes(10**7)))
    else:
        parts[chosen] = (kind, _changed(rng, content, [content]))
    chunks = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts]
    return data[:8] + b"".join(chunks)
