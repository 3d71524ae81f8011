"""The structure of EXIF data, which is that of a TIFF file: directories of typed fields.

Fields are kept as the raw bytes they are, in the byte order they come in. So nothing is lost
on the way through: not the letters outside ASCII, not the types, not the fields nobody knows.
EXIF data that stay in their format are even changed in place only, because maker notes hold
offsets that break when anything moves.

Source: TIFF 6.0 (1992), sections 2 and 3; Exif 2.32 (CIPA DC-008-2019), chapter 4.
"""

import io
import struct
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

ByteOrder = Literal["<", ">"]

ORIENTATION = 0x0112
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 0x8769, 0x8825, 0xA005
WIDTH_PX, HEIGHT_PX = 0xA002, 0xA003
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGER_CODES = {BYTE: "B", SHORT: "H", LONG: "I", 13: "I"}
_NESTED = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY)
_MAX_FIELDS = 4096
_MAX_FIELD_BYTES = 256 << 20


@dataclass(frozen=True)
class Field:
    """One field: its type's number, its raw bytes or the directory below, and where they lay."""

    type: int
    data: bytes
    directory: "Directory | None" = None
    place: int = 0


Directory = dict[int, Field]


@dataclass
class Tags:
    """A directory with all those below it, and the byte order of its fields."""

    order: ByteOrder = "<"
    fields: Directory = field(default_factory=dict)
    next_pointer: int = 0  # where it is said in which place the next one lies, of a thumbnail

    def integers(self, tag: int) -> tuple[int, ...]:
        """The values of a field of whole numbers; empty where there is none."""
        item = self.fields.get(tag)
        if item is None or item.type not in _INTEGER_CODES:
            return ()
        count = len(item.data) // _TYPE_BYTES[item.type]
        return struct.unpack(f"{self.order}{count}{_INTEGER_CODES[item.type]}", item.data)

    def integer(self, tag: int, default: int) -> int:
        """The first value of a field of whole numbers."""
        return next(iter(self.integers(tag)), default)

    def ratios(self, tag: int) -> tuple[float, ...]:
        """The values of a field of ratios; empty where there is none."""
        item = self.fields.get(tag)
        if item is None or item.type != RATIONAL:
            return ()
        pairs = struct.iter_unpack(self.order + "II", item.data)
        return tuple(above / below if below else 0.0 for above, below in pairs)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """The resolution, horizontally and vertically; None if it is not given in full."""
        x, y = sum(self.ratios(X_RESOLUTION)[:1]), sum(self.ratios(Y_RESOLUTION)[:1])
        factor = {2: 1.0, 3: 2.54}.get(self.integer(RESOLUTION_UNIT, 2))
        return (x * factor, y * factor) if x and y and factor else None


def read_tags(file: BinaryIO) -> Tags:
    """Reads the first directory of a TIFF file or of EXIF data, and those below it. Damaged fields
    and directories below are left out. Raises ValueError without a whole first directory."""
    file.seek(0)
    header = file.read(8)
    orders: dict[bytes, ByteOrder] = {b"II*\0": "<", b"MM\0*": ">"}
    order = orders.get(header[:4])
    if order is None:
        raise ValueError("no TIFF header")
    count, entry, pointer = (struct.Struct(order + form) for form in ("H", "HHI4s", "I"))
    unreadable = (struct.error, OverflowError, OSError, ValueError)

    def read_directory(start: int, depth: int = 0) -> tuple[Directory, int]:
        """A directory, and where the pointer to the next one lies."""
        file.seek(start)
        (length,) = count.unpack(file.read(count.size))
        table = file.read(min(length, _MAX_FIELDS) * entry.size)
        if len(table) < length * entry.size:
            raise ValueError("a directory beyond the end")
        fields: Directory = {}
        end = start + count.size
        for tag, type_, values, inline in entry.iter_unpack(table):
            end += entry.size
            size, place, data = values * _TYPE_BYTES.get(type_, 0), end - len(inline), inline
            if not 0 < size <= _MAX_FIELD_BYTES or tag in fields:
                continue
            try:
                if size > len(inline):
                    (place,) = pointer.unpack(inline)
                    file.seek(place)
                    data = file.read(size)
                found = Field(type_, data[:size], place=place)
                if tag in _NESTED and depth < 2:
                    (below,) = pointer.unpack(found.data)
                    found = Field(LONG, b"", read_directory(below, depth + 1)[0], below)
            except unreadable:
                continue
            if found.directory is not None or len(found.data) == size:
                fields[tag] = found
        return fields, end

    try:
        fields, end = read_directory(*pointer.unpack_from(header, 4))
    except unreadable as error:
        raise ValueError(str(error)) from error
    return Tags(order, fields, end)


def directory_bytes(fields: Directory, order: ByteOrder, start: int) -> bytes:
    """A directory as it lies at byte `start` of a classic TIFF file, those below it included.
    Raises struct.error where it would reach beyond 4 GiB."""
    place = start + 2 + 12 * len(fields) + 4
    table, data = [struct.pack(order + "H", len(fields))], bytearray()
    for tag, item in sorted(fields.items()):
        type_, raw = item.type, item.data
        if item.directory is not None:
            raw = directory_bytes(item.directory, order, place + len(data))
            table.append(struct.pack(order + "HHII", tag, LONG, 1, place + len(data)))
            data += raw
            continue
        value = raw.ljust(4, b"\0")
        if len(raw) > 4:
            value = struct.pack(order + "I", place + len(data))
            data += raw + b"\0" * (len(raw) % 2)
        count = len(raw) // _TYPE_BYTES[type_]
        table.append(struct.pack(order + "HHI4s", tag, type_, count, value))
    return b"".join([*table, b"\0\0\0\0", data])


def exif_bytes(tags: Tags) -> bytes:
    """EXIF data (without the ``Exif\\0\\0`` that JPEG puts before them) with these tags."""
    header = b"II*\0\x08\0\0\0" if tags.order == "<" else b"MM\0*\0\0\0\x08"
    return header + directory_bytes(tags.fields, tags.order, len(header))


def read_exif(data: bytes | None) -> tuple[bytes | None, Tags]:
    """EXIF data from the TIFF header on, however wrapped, and their tags; None if damaged."""
    data = data or b""
    while data.startswith(b"Exif\0\0"):
        data = data[6:]
    try:
        return data, read_tags(io.BytesIO(data))
    except ValueError:
        return None, Tags()


def make_upright(data: bytes, tags: Tags) -> tuple[bytes, int]:
    """EXIF data with these tags that call the pixels upright, and the orientation (1 to 8) until
    now. Where that swaps the sides, width and height are swapped, too. The thumbnail, which shows
    the blurred picture, is no longer pointed to."""
    result = bytearray(data)
    # Some files lack that pointer: there the first field's content lies.
    places = {item.place for item in tags.fields.values()}
    if tags.next_pointer not in places and len(data) >= tags.next_pointer + 4:
        struct.pack_into("4x", result, tags.next_pointer)
    if ORIENTATION in tags.fields:
        _set_integer(result, tags.order, tags.fields[ORIENTATION], 1)
    values = tags.integers(ORIENTATION)
    orientation = values[0] if len(values) == 1 and 1 <= values[0] <= 8 else 1
    below = Tags(tags.order, tags.fields.get(EXIF_DIRECTORY, Field(LONG, b"")).directory or {})
    if orientation >= 5 and WIDTH_PX in below.fields and HEIGHT_PX in below.fields:
        for tag, other in ((WIDTH_PX, HEIGHT_PX), (HEIGHT_PX, WIDTH_PX)):
            _set_integer(result, tags.order, below.fields[tag], below.integer(other, 0))
    return bytes(result), orientation


def _set_integer(data: bytearray, order: ByteOrder, item: Field, value: int) -> None:
    """Writes a field of one number where it lies, if the number is of that kind and size."""
    code = order + _INTEGER_CODES.get(item.type, "")
    if len(item.data) == struct.calcsize(code) and value < 256 ** len(item.data):
        struct.pack_into(code, data, item.place, value)
