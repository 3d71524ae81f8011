"""The boxes of HEIC and AVIF files: what they say of their main picture besides its pixels.

Source: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (HEIF), 6.5 and 9; ITU-T H.273 (CICP).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_MAX_ITEMS = 4096
_ORIENTATIONS = {  # by turns of 90 degrees against the clock, and by what is mirrored after that
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 1): 2, (2, 0): 2, (0, 0): 4, (2, 1): 4, (1, 0): 5, (3, 1): 5, (1, 1): 7, (3, 0): 7,
}  # fmt: skip


@dataclass
class MainPicture:
    """What a file says of its main picture.

    Attributes:
        bits: per channel; 8 where it is not said.
        cicp: the numbers of its colour primaries and transfer curve; None where not given.
        orientation: as in EXIF, of the pixels as they are encoded.
        crop: left, top, width, height of what is shown of the pixels as they are encoded; None
            is all.
        exif: EXIF data, from the TIFF header on.
        exif_places: where in the file the type of each EXIF item stands.
        extras: what other pictures belong to it: ``"a gain map"``, say.
    """

    bits: int = 8
    cicp: tuple[int, int] | None = None
    orientation: int = 1
    crop: tuple[int, int, int, int] | None = None
    exif: bytes | None = None
    exif_places: list[int] = field(default_factory=list)
    extras: set[str] = field(default_factory=set)


@dataclass
class _Item:
    kind: bytes
    hidden: bool
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)


def read_main_picture(data: bytes) -> MainPicture:
    """Reads the boxes of a HEIC or AVIF file; what is damaged is left out."""
    main = MainPicture()
    try:
        meta = next(place for kind, place in _boxes(data, 0, len(data)) if kind == b"meta")
        boxes = dict(_boxes(data, meta.start + 4, meta.stop))
        primary = int.from_bytes(data[boxes[b"pitm"].start + 4 : boxes[b"pitm"].stop], "big")
        items = _read_items(data, boxes, main)
        alpha, thumbnails = _read_references(data, boxes, items, primary, main)
        for number, item in items.items():
            if number == primary or number in alpha | thumbnails or item.hidden:
                continue
            if item.kind == b"tmap":
                main.extras.add("a gain map")
            elif item.kind in (b"av01", b"hvc1", b"grid", b"iden", b"iovl", b"jpeg"):
                main.extras.add("further pictures")
        _read_properties(items[primary], main)
        exif = [number for number, item in items.items() if item.kind == b"Exif"]
        if exif:
            found = _read_content(data, boxes, exif[0])
            main.exif = found[4 + int.from_bytes(found[:4], "big") :] or None
    except (StopIteration, KeyError, IndexError, struct.error, ZeroDivisionError):
        pass  # the decoder will say what it can't do without
    return main


def _boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, range]]:
    """Kind and place of the content of each box."""
    while start + 8 <= stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        end = stop if size == 0 else start + size
        if end > stop or end < start + header:
            return
        yield kind, range(start + header, end)
        start = end


def _read_items(data: bytes, boxes: dict[bytes, range], main: MainPicture) -> dict[int, _Item]:
    items: dict[int, _Item] = {}
    infos = boxes[b"iinf"]
    for kind, place in _boxes(data, infos.start + (6 if data[infos.start] == 0 else 8), infos.stop):
        if kind == b"infe" and len(items) < _MAX_ITEMS:
            wide = data[place.start] >= 3
            number = int.from_bytes(data[place.start + 4 : place.start + (8 if wide else 6)], "big")
            type_at = place.start + (10 if wide else 8)
            items[number] = _Item(data[type_at : type_at + 4], bool(data[place.start + 3] & 1))
            if items[number].kind == b"Exif":
                main.exif_places.append(type_at)
    containers = dict(_boxes(data, boxes[b"iprp"].start, boxes[b"iprp"].stop))
    known = [
        (kind, data[place.start : place.stop])
        for kind, place in _boxes(data, containers[b"ipco"].start, containers[b"ipco"].stop)
    ]
    place = containers[b"ipma"]
    version, flags = data[place.start], data[place.start + 3]
    (count,) = struct.unpack_from(">I", data, place.start + 4)
    at = place.start + 8
    for _ in range(min(count, _MAX_ITEMS)):
        number = int.from_bytes(data[at : at + (2 if version == 0 else 4)], "big")
        at += 2 if version == 0 else 4
        associations, at = data[at], at + 1
        for _ in range(associations):
            size = 2 if flags & 1 else 1
            index = int.from_bytes(data[at : at + size], "big") & (0x7FFF if flags & 1 else 0x7F)
            at += size
            if number in items and 0 < index <= len(known):
                items[number].properties.append(known[index - 1])
    return items


def _read_content(data: bytes, boxes: dict[bytes, range], wanted: int) -> bytes:
    """The bytes of an item, wherever they lie."""
    at = boxes[b"iloc"].start
    version, sizes, more_sizes = data[at], data[at + 4], data[at + 5]
    at += 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(min(number(2 if version < 2 else 4), _MAX_ITEMS)):
        item = number(2 if version < 2 else 4)
        in_box = version > 0 and number(2) & 15 == 1
        number(2)  # another file, which nobody uses
        base = number(more_sizes >> 4) + (boxes[b"idat"].start if in_box else 0)
        content = b""
        for _ in range(number(2)):
            number(more_sizes & 15 if version > 0 else 0)
            start = base + number(sizes >> 4)
            length = number(sizes & 15)
            content += data[start : start + (length or len(data))] if item == wanted else b""
        if item == wanted:
            return content
    return b""


def _read_references(
    data: bytes,
    boxes: dict[bytes, range],
    items: dict[int, _Item],
    primary: int,
    main: MainPicture,
) -> tuple[set[int], set[int]]:
    """The numbers of the pictures that are alpha or other planes of one, and of thumbnails."""
    planes: set[int] = set()
    thumbnails: set[int] = set()
    place = boxes.get(b"iref", range(0))
    size = 2 if place and data[place.start] == 0 else 4
    for kind, inner in _boxes(data, place.start + 4, place.stop):
        numbers = [
            int.from_bytes(data[at : at + size], "big")
            for at in (inner.start, *range(inner.start + size + 2, inner.stop, size))
        ]
        source, targets = numbers[0], numbers[1:]
        if kind == b"thmb":
            thumbnails.add(source)
        elif kind == b"dimg":  # tiles of a grid, or what a gain map is applied to
            thumbnails.update(targets)
        elif kind == b"auxl" and source in items:
            planes.add(source)
            urn = dict(items[source].properties).get(b"auxC", b"")[4:].rstrip(b"\0")
            if primary not in targets:
                continue
            if b"gainmap" in urn:
                main.extras.add("a gain map")
            elif b"depth" in urn or urn.endswith(b"auxid:2"):
                main.extras.add("a depth map")
            elif b"alpha" not in urn and not urn.endswith(b"auxid:1"):
                main.extras.add("further pictures")
    return planes, thumbnails


def _read_properties(item: _Item, main: MainPicture) -> None:
    turns, mirrored = 0, None
    width, height = struct.unpack_from(">II", dict(item.properties)[b"ispe"], 4)
    for kind, body in item.properties:
        if kind == b"pixi" and len(body) > 5:
            main.bits = body[5]
        elif kind == b"colr" and body[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", body, 4)
            main.cicp = (primaries, transfer)
        elif kind == b"irot":
            turns = body[0] & 3
        elif kind == b"imir":
            mirrored = body[0] & 1
        elif kind == b"clap":
            numbers = struct.unpack_from(">IIIIiIiI", body)
            shown_width, shown_height = numbers[0] // numbers[1], numbers[2] // numbers[3]
            left = numbers[4] / numbers[5] + (width - shown_width) / 2
            top = numbers[6] / numbers[7] + (height - shown_height) / 2
            if 0 < shown_width <= width - left and 0 < shown_height <= height - top:
                main.crop = (max(0, round(left)), max(0, round(top)), shown_width, shown_height)
    main.orientation = _ORIENTATIONS[turns, mirrored]
