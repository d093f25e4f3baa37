# The data types of RFC 4251 section 5: how a value lies in bytes, both ways.
#
# Reading is where hostile input arrives.  A Reader never takes more than is there and a length
# is compared with what is left before anything is sliced, so nothing larger than the message
# itself is ever allocated.
"""The data types of RFC 4251 section 5."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")

T = TypeVar("T")


class ProtocolError(ValueError):
    """The bytes are not a message of the agent protocol.  Says which part is wrong."""


class Reader:
    """Takes values from the front of some bytes."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        end = self._position + length
        if end > len(self._data):
            raise ProtocolError(
                f"truncated: {length} bytes wanted, {len(self._data) - self._position} left"
            )
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._position)

    @property
    def empty(self) -> bool:
        """Whether everything has been taken."""
        return self._position == len(self._data)

    def expect_end(self) -> None:
        """Refuse bytes left over."""
        if not self.empty:
            raise ProtocolError(f"{len(self._data) - self._position} bytes too many")


class Field(NamedTuple, Generic[T]):
    """How one kind of value is read and written."""

    read: Callable[[Reader], T]
    write: Callable[[T], bytes]


def _read_byte(reader: Reader) -> int:
    return reader.take(1)[0]


def _read_boolean(reader: Reader) -> bool:
    return reader.take(1) != b"\0"


def _read_uint32(reader: Reader) -> int:
    return int(_UINT32.unpack(reader.take(4))[0])


def _read_uint64(reader: Reader) -> int:
    return int(_UINT64.unpack(reader.take(8))[0])


def _read_string(reader: Reader) -> bytes:
    return reader.take(_read_uint32(reader))


def _write_string(value: bytes) -> bytes:
    return _UINT32.pack(len(value)) + value


def _read_text(reader: Reader) -> str:
    value = _read_string(reader)
    if b"\0" in value:
        raise ProtocolError("NUL in a text")
    return value.decode("utf-8", "surrogateescape")


def _write_text(value: str) -> bytes:
    return _write_string(value.encode("utf-8", "surrogateescape"))


def _read_mpint(reader: Reader) -> int:
    value = _read_string(reader)
    if value[:1] > b"\x7f":
        raise ProtocolError("negative number in a key")
    return int.from_bytes(value, "big")


def _write_mpint(value: int) -> bytes:
    # One byte more than the magnitude needs keeps the sign bit clear.
    return _write_string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


BYTE = Field(_read_byte, lambda value: bytes((value,)))
BOOLEAN = Field(_read_boolean, lambda value: b"\1" if value else b"\0")
UINT32 = Field(_read_uint32, _UINT32.pack)
UINT64 = Field(_read_uint64, _UINT64.pack)
STRING = Field(_read_string, _write_string)
# Names, comments and paths.  Bytes that are not UTF-8 survive the way there and back.
TEXT = Field(_read_text, _write_text)
MPINT = Field(_read_mpint, _write_mpint)
REST = Field(Reader.rest, lambda value: value)


def repeated(item: Field[T]) -> Field[tuple[T, ...]]:
    """As many of `item` as there are until the end."""

    def read(reader: Reader) -> tuple[T, ...]:
        items = []
        while not reader.empty:
            items.append(item.read(reader))
        return tuple(items)

    return Field(read, lambda values: b"".join(map(item.write, values)))


def counted(item: Field[T]) -> Field[tuple[T, ...]]:
    """A uint32 count, and that many of `item`."""

    def read(reader: Reader) -> tuple[T, ...]:
        # No room is made for `count` items: a lie about it ends as a truncated message.
        items = []
        for _ in range(_read_uint32(reader)):
            items.append(item.read(reader))
        return tuple(items)

    return Field(read, lambda values: _UINT32.pack(len(values)) + b"".join(map(item.write, values)))


def nested(item: Field[T]) -> Field[T]:
    """A string that contains exactly one `item`."""

    def read(reader: Reader) -> T:
        inner = Reader(_read_string(reader))
        value = item.read(inner)
        inner.expect_end()
        return value

    return Field(read, lambda value: _write_string(item.write(value)))


class Record:
    """A dataclass whose fields lie one after the other as its `layout` says."""

    layout: tuple[Field, ...] = ()  # type: ignore[type-arg]

    @classmethod
    def read(cls: type[R], reader: Reader) -> R:
        """Take one from `reader`."""
        return cls(*[field.read(reader) for field in cls.layout])

    def write(self) -> bytes:
        """The bytes that `read` takes."""
        names: tuple[str, ...] = self.__match_args__  # type: ignore[attr-defined]
        return b"".join(
            field.write(getattr(self, name)) for field, name in zip(self.layout, names, strict=True)
        )


R = TypeVar("R", bound=Record)


def record(cls: type[R]) -> Field[R]:
    """A Record as a field of another."""
    return Field(cls.read, cls.write)
