# The data types of RFC 4251 section 5: how a value lies in bytes, both ways.
#
# Reading is where hostile input arrives.  A Reader never takes more than is there and a length
# is compared with what is left before anything is sliced, so nothing larger than the message
# itself is ever allocated.
"""The data types of RFC 4251 section 5."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, NoReturn, Self, TypeVar, dataclass_transform

from .refusals import Cause

_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")

T = TypeVar("T")


class ProtocolError(ValueError):
    """The bytes are not a message of the agent protocol.  Says which part is wrong."""

    cause: ClassVar[Cause] = Cause.MALFORMED


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


class Codec(NamedTuple, Generic[T]):
    """How one kind of value is read and written."""

    read: Callable[[Reader], T]
    write: Callable[[T], bytes]

    def parse(self, data: bytes) -> T:
        """The value that `data` is, to its end.  Raises ProtocolError."""
        reader = Reader(data)
        value = self.read(reader)
        reader.expect_end()
        return value


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
    # OpenSSH takes one for C's end of a string, and many a client sends it along.
    value = _read_string(reader).removesuffix(b"\0")
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


BYTE = Codec(_read_byte, lambda value: bytes((value,)))
BOOLEAN = Codec(_read_boolean, lambda value: b"\1" if value else b"\0")
UINT32 = Codec(_read_uint32, _UINT32.pack)
UINT64 = Codec(_read_uint64, _UINT64.pack)
STRING = Codec(_read_string, _write_string)
# Names, comments and paths.  Bytes that are not UTF-8 survive the way there and back.
TEXT = Codec(_read_text, _write_text)
MPINT = Codec(_read_mpint, _write_mpint)
REST = Codec(Reader.rest, lambda value: value)


def repeated(item: Codec[T]) -> Codec[tuple[T, ...]]:
    """As many of `item` as there are until the end."""

    def read(reader: Reader) -> tuple[T, ...]:
        items = []
        while not reader.empty:
            items.append(item.read(reader))
        return tuple(items)

    return Codec(read, lambda values: b"".join(map(item.write, values)))


def counted(item: Codec[T]) -> Codec[tuple[T, ...]]:
    """A uint32 count, and that many of `item`."""

    def read(reader: Reader) -> tuple[T, ...]:
        # No room is made for `count` items: a lie about it ends as a truncated message.
        items = []
        for _ in range(_read_uint32(reader)):
            items.append(item.read(reader))
        return tuple(items)

    return Codec(read, lambda values: _UINT32.pack(len(values)) + b"".join(map(item.write, values)))


def nested(item: Codec[T]) -> Codec[T]:
    """A string that contains exactly one `item`."""

    return Codec(
        lambda reader: item.parse(_read_string(reader)),
        lambda value: _write_string(item.write(value)),
    )


_REQUIRED: Any = object()


class _Declared(NamedTuple):
    codec: Codec[Any]
    default: Any


def field(codec: Codec[T], *, default: T = _REQUIRED) -> T:
    """Declare a field of a Record, by how it is read and written."""
    # For a type checker it is a value of the field's type: so it compares annotation and codec.
    return _Declared(codec, default)  # type: ignore[return-value]


# Not a dataclass, although a type checker takes it for one: to make one of those, Python writes its
# methods as text and compiles them, which for all records took 40 ms of every start.
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Record:
    """A value that doesn't change.  Its fields lie one after the other in the order in which they
    are declared, as `blob: bytes = field(STRING)`; a subclass has those of its base first.

    With `repr=False`, for secrets, neither a subclass nor those of it show their fields.
    """

    layout: ClassVar[dict[str, Codec[Any]]] = {}
    __match_args__: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, *, repr: bool = True) -> None:
        declared = {name: one for name, one in vars(cls).items() if isinstance(one, _Declared)}
        for name in declared:
            delattr(cls, name)
        cls.layout = cls.layout | {name: one.codec for name, one in declared.items()}
        cls.__match_args__ = tuple(cls.layout)  # type: ignore[misc]
        cls._defaults = cls._defaults | {
            name: one.default for name, one in declared.items() if one.default is not _REQUIRED
        }
        if not repr:
            cls.__repr__ = object.__repr__  # type: ignore[method-assign]

    def __init__(self, *values: Any, **named: Any) -> None:
        names = self.__match_args__
        if named or len(values) != len(names):
            values = self._ordered(values, named)
        self.__dict__.update(zip(names, values, strict=True))

    @classmethod
    def _ordered(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """The values of all fields.  Raises TypeError where some are missing or too many."""
        names = cls.__match_args__
        given = dict(zip(names, values, strict=False))
        fields = cls._defaults | given | named
        too_many = len(values) > len(names) or not given.keys().isdisjoint(named)
        if too_many or fields.keys() != cls.layout.keys():
            raise TypeError(f"the fields of {cls.__name__} are {names}")
        return tuple(fields[name] for name in names)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} doesn't change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} doesn't change")

    @property
    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values == other._values

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        fields = [f"{name}={getattr(self, name)!r}" for name in self.__match_args__]
        return f"{type(self).__name__}({', '.join(fields)})"

    def replace(self, **changes: Any) -> Self:
        """The same, but for the fields that are given."""
        return type(self)(**{name: getattr(self, name) for name in self.__match_args__} | changes)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Take one from `reader`.  Raises ProtocolError."""
        return cls(*[codec.read(reader) for codec in cls.layout.values()])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The record that `data` is, to its end.  Raises ProtocolError."""
        return record(cls).parse(data)

    def write(self) -> bytes:
        """The bytes that `read` takes."""
        return b"".join([codec.write(getattr(self, name)) for name, codec in self.layout.items()])


R = TypeVar("R", bound=Record)


def record(cls: type[R]) -> Codec[R]:
    """A Record as a field of another."""
    return Codec(cls.read, cls.write)
