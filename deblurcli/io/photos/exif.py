"""The structure of EXIF data, which is that of a TIFF file: directories of typed fields.

Fields are kept as the raw bytes they are, in the byte order they come in. So nothing is lost
on the way through: not the letters outside ASCII, not the types, not the fields nobody knows.
EXIF data that stay in their format are even changed in place only, because maker notes hold
offsets that break when anything moves.

Source: TIFF 6.0 (1992), sections 2 and 3; Exif 2.32 (CIPA DC-008-2019), chapter 4.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

ByteOrder = Literal["<", ">"]

ORIENTATION = 0x0112
THUMBNAIL_OFFSET, THUMBNAIL_BYTES = 0x0201, 0x0202
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 0x8769, 0x8825, 0xA005
WIDTH_PX, HEIGHT_PX = 0xA002, 0xA003
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296

SHORT, LONG, UNDEFINED, BYTE, ASCII, RATIONAL = 3, 4, 7, 1, 2, 5
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_TYPE_BYTES = {**_TYPE_BYTES, 16: 8, 17: 8, 18: 8}
_NESTED = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY)
_MAX_FIELDS = 4096
_MAX_FIELD_BYTES = 256 << 20


class ExifError(ValueError):
    """The data are not EXIF data, or damaged."""


@dataclass(frozen=True)
class Field:
    """One field of a directory: its type's number, its raw bytes, or the directory below it."""

    type: int
    data: bytes
    directory: Directory | None = None

    def integers(self, order: ByteOrder) -> tuple[int, ...]:
        """The values of a field of whole numbers; empty for other types."""
        code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}.get(self.type)
        if code is None:
            return ()
        count = len(self.data) // struct.calcsize(order + code)
        return struct.unpack_from(f"{order}{count}{code}", self.data)


Directory = dict[int, Field]


@dataclass
class Tags:
    """A directory with all those below it, and the byte order of its fields."""

    order: ByteOrder = "<"
    fields: Directory = field(default_factory=dict)

    def integers(self, tag: int) -> tuple[int, ...]:
        """The values of a field of whole numbers; empty where there is none."""
        item = self.fields.get(tag)
        return item.integers(self.order) if item is not None else ()

    def ratios(self, tag: int) -> tuple[float, ...]:
        """The values of a field of ratios; empty where there is none."""
        item = self.fields.get(tag)
        if item is None or item.type != RATIONAL or len(item.data) % 8:
            return ()
        pairs = struct.iter_unpack(self.order + "II", item.data)
        return tuple(above / below if below else 0.0 for above, below in pairs)

    def integer(self, tag: int, default: int) -> int:
        """The first value of a field of whole numbers."""
        return next(iter(self.integers(tag)), default)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """The resolution, horizontally and vertically; None if it is not given in full."""
        x, y = self.ratios(X_RESOLUTION)[:1], self.ratios(Y_RESOLUTION)[:1]
        factor = {2: 1.0, 3: 2.54}.get(self.integer(RESOLUTION_UNIT, 2))
        if not (x and y and x[0] and y[0] and factor):
            return None
        return x[0] * factor, y[0] * factor


def dpi_in_exif(data: bytes | None) -> tuple[float, float] | None:
    """The resolution that EXIF data give, if they are intact and give one."""
    try:
        return read_tags(io.BytesIO(data)).dpi if data is not None else None
    except ExifError:
        return None


def read_tags(file: BinaryIO) -> Tags:
    """Reads the first directory of a TIFF file or of EXIF data, and those below it.

    Damaged fields and directories are left out.

    Raises:
        ExifError: there is no directory to read at all.
    """
    file.seek(0)
    header = file.read(16)
    order: ByteOrder
    if header[:4] in (b"II*\0", b"II+\0"):
        order = "<"
    elif header[:4] in (b"MM\0*", b"MM\0+"):
        order = ">"
    else:
        raise ExifError("no TIFF header")
    big = b"+" in header[2:4]
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), header, 8 if big else 4)
        return Tags(order, _read_directory(file, order, start, big, depth=0))
    except (struct.error, OverflowError, OSError) as error:
        raise ExifError(str(error)) from error


def _read_directory(
    file: BinaryIO, order: ByteOrder, start: int, big: bool, depth: int
) -> Directory:
    file.seek(start)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    if count > _MAX_FIELDS:
        raise ExifError("too many fields")
    entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    table = file.read(count * entry.size)
    sizes = _BIG_TYPE_BYTES if big else _TYPE_BYTES
    fields: Directory = {}
    for tag, type_, length, inline in entry.iter_unpack(
        table[: len(table) // entry.size * entry.size]
    ):
        size = length * sizes.get(type_, 0)
        if not size or size > _MAX_FIELD_BYTES or tag in fields:
            continue
        data = inline[:size]
        if size > len(inline):
            (offset,) = struct.unpack(order + ("Q" if big else "I"), inline)
            try:
                file.seek(offset)
                data = file.read(size)
            except (OSError, OverflowError):
                continue
            if len(data) < size:
                continue
        found = Field(type_, data)
        if tag in _NESTED and depth < 2:
            try:
                (below,) = found.integers(order)
                found = Field(LONG, b"", _read_directory(file, order, below, big, depth + 1))
            except (ValueError, struct.error, OverflowError, OSError):
                continue
        fields[tag] = found
    return fields


def directory_bytes(fields: Directory, order: ByteOrder, start: int) -> bytes:
    """A directory as it lies at byte `start` of a classic TIFF file, those below it included.

    Raises:
        ExifError: it would reach beyond 4 GiB.
    """
    kept = [(tag, fields[tag]) for tag in sorted(fields)]
    table_bytes = 2 + 12 * len(kept) + 4
    table, data = [struct.pack(order + "H", len(kept))], bytearray()
    try:
        for tag, item in kept:
            if item.directory is not None:
                place = start + table_bytes + len(data)
                data += directory_bytes(item.directory, order, place)
                table.append(struct.pack(order + "HHII", tag, LONG, 1, place))
                continue
            type_, raw = _without_big_types(item, order)
            count = len(raw) // _TYPE_BYTES[type_]
            if len(raw) > 4:
                place = start + table_bytes + len(data)
                value = struct.pack(order + "I", place)
                data += raw + b"\0" * (len(raw) % 2)
            else:
                value = raw.ljust(4, b"\0")
            table.append(struct.pack(order + "HHI4s", tag, type_, count, value))
    except struct.error as error:
        raise ExifError(f"too large: {error}") from error
    return b"".join([*table, b"\0\0\0\0", data])


def _without_big_types(item: Field, order: ByteOrder) -> tuple[int, bytes]:
    if item.type == 16:  # LONG8, known to BigTIFF only
        values = item.integers(order)
        return LONG, struct.pack(f"{order}{len(values)}I", *values)
    return (item.type, item.data) if item.type in _TYPE_BYTES else (UNDEFINED, item.data)


def exif_bytes(tags: Tags) -> bytes:
    """EXIF data (without the ``Exif\\0\\0`` that JPEG puts before them) with these tags."""
    header = b"II*\0\x08\0\0\0" if tags.order == "<" else b"MM\0*\0\0\0\x08"
    return header + directory_bytes(tags.fields, tags.order, len(header))


class ExifEditor:
    """Changes EXIF data in place: nothing moves, so that offsets in maker notes stay right.

    Args:
        data: EXIF data, beginning with the TIFF header.

    Raises:
        ExifError: the data are damaged.
    """

    def __init__(self, data: bytes) -> None:
        if data[:4] not in (b"II*\0", b"MM\0*"):
            raise ExifError("no TIFF header")
        self.data = bytearray(data)
        self.order: ByteOrder = "<" if data[:2] == b"II" else ">"
        self._main, after = self._places(self._integer("I", 4))
        self._next_pointer = after
        self._thumbnail: dict[int, int] = {}
        try:
            second = self._integer("I", after)
            if second:
                self._thumbnail, _ = self._places(second)
        except ExifError:
            pass  # a damaged thumbnail hurts nobody

    def _integer(self, code: str, place: int) -> int:
        try:
            (value,) = struct.unpack_from(self.order + code, self.data, place)
        except struct.error as error:
            raise ExifError(str(error)) from error
        return int(value)

    def _places(self, start: int) -> tuple[dict[int, int], int]:
        """Where each field's entry lies in the directory at `start`, and where the table ends."""
        count = self._integer("H", start)
        after = start + 2 + 12 * count
        if count > _MAX_FIELDS or after > len(self.data):
            raise ExifError("directory beyond the end")
        places = {self._integer("H", start + 2 + 12 * i): start + 2 + 12 * i for i in range(count)}
        return places, after

    def _get(self, place: int) -> int:
        return self._integer("H" if self._integer("H", place + 2) == SHORT else "I", place + 8)

    def _set(self, place: int, value: int) -> None:
        code = "H" if self._integer("H", place + 2) == SHORT else "I"
        struct.pack_into(self.order + code, self.data, place + 8, value)

    @property
    def orientation(self) -> int:
        """1 to 8; 1 where the data don't say or make no sense."""
        place = self._main.get(ORIENTATION)
        value = 1 if place is None else self._get(place)
        return value if 1 <= value <= 8 else 1

    def set_upright(self) -> None:
        """Says that the pixels are upright now, and swaps width and height if they were."""
        turned = self.orientation >= 5
        for places in (self._main, self._thumbnail):
            if ORIENTATION in places:
                self._set(places[ORIENTATION], 1)
        if turned and EXIF_DIRECTORY in self._main:
            try:
                places, _ = self._places(self._get(self._main[EXIF_DIRECTORY]))
                width, height = self._get(places[WIDTH_PX]), self._get(places[HEIGHT_PX])
                self._set(places[WIDTH_PX], height)
                self._set(places[HEIGHT_PX], width)
            except (ExifError, KeyError, struct.error):
                pass  # it does not give them

    def replace_thumbnail(self, make: Callable[[int], bytes | None]) -> None:
        """Puts another thumbnail in the place of the one there is, or takes it out.

        Args:
            make: given the bytes there are for it, gives a JPEG file, or None for no thumbnail.
        """
        if not self._integer("I", self._next_pointer):
            return
        try:
            start = self._get(self._thumbnail[THUMBNAIL_OFFSET])
            room = self._get(self._thumbnail[THUMBNAIL_BYTES])
            is_jpeg = bytes(self.data[start : start + 2]) == b"\xff\xd8"
        except (KeyError, ExifError):
            start, room, is_jpeg = 0, 0, False
        if start + room > len(self.data):
            is_jpeg = False
        made = make(room) if is_jpeg else None
        if made is not None and len(made) <= room:
            self.data[start : start + room] = made.ljust(room, b"\0")
            self._set(self._thumbnail[THUMBNAIL_BYTES], len(made))
            return
        if is_jpeg:  # what the old picture showed is nobody's business any more
            self.data[start : start + room] = bytes(room)
        struct.pack_into(self.order + "I", self.data, self._next_pointer, 0)
