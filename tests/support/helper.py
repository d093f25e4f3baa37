"""A stand-in for ssh-pkcs11-helper of OpenSSH 10.1 and later, run as a program.

Its argument says how it fails at a request for a signature, or, with `load-` before it, at one for
its keys: hang, die, endless, short, long, talk (out of turn), garbage, another (key's signature),
other-data, other-algorithm, twice.  ssh-pkcs11-helper's -v is passed over.
"""

from __future__ import annotations

import os
import sys
import time
from typing import BinaryIO, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kagent.private import sealed
from kagent.private.library import der
from kagent.protocol.publickey import parse_line
from kagent.protocol.wire import BYTE, STRING, TEXT, UINT32, Reader

_FAILURE, _KEYS, _SIGN, _SIGNED, _ADD = 30, 12, 13, 14, 20
_OTHERS = {"rsa-sha2-256": "rsa-sha2-512", "rsa-sha2-512": "ssh-rsa"}


def _made() -> dict[bytes, tuple[str, sealed.ParsedKey]]:
    made = {}
    for key in (
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    ):
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        public, _ = parse_line(line.decode())
        made[public.blob] = public.plain_type, sealed.parse(der(key))
    return made


class _Helper:
    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour
        self._keys = _made()
        self._others = dict(_made().values())

    def serve(self, asked: BinaryIO, answers: BinaryIO) -> None:
        while header := asked.read(4):
            reader = Reader(asked.read(int.from_bytes(header, "big")))
            kind = BYTE.read(reader)
            if kind == _ADD:
                listed = [STRING.write(blob) + TEXT.write("") for blob in self._keys]
                answer = BYTE.write(_KEYS) + UINT32.write(len(listed)) + b"".join(listed)
                failing = self._behaviour.removeprefix("load-")
                failing = failing if self._behaviour.startswith("load-") else ""
            else:
                assert kind == _SIGN
                answer, failing = self._signed(reader), self._behaviour
            self._answer(STRING.write(answer), failing, answers)

    def _signed(self, reader: Reader) -> bytes:
        blob, data = STRING.read(reader), STRING.read(reader)
        algorithm, _ = TEXT.read(reader), UINT32.read(reader)
        plain, key = self._keys[blob]
        if self._behaviour == "another":
            key = self._others[plain]
        if self._behaviour == "other-data":
            data += b"."
        if self._behaviour == "other-algorithm":
            algorithm = _OTHERS.get(algorithm, algorithm)
        made = sealed.sign(key, algorithm or plain, data)
        return BYTE.write(_SIGNED) + STRING.write(made)

    def _answer(self, frame: bytes, failing: str, answers: BinaryIO) -> None:
        match failing:
            case "hang":
                while True:
                    time.sleep(60)
            case "die":
                sys.exit(1)
            case "endless":
                answers.write(b"\xff\xff\xff\xff")
                _write_for_ever(answers)
            case "short":
                frame = UINT32.write(len(frame) - 8) + frame[4:-4]
            case "long":
                frame = UINT32.write(len(frame)) + frame[4:] + b"more"
            case "garbage":
                frame = STRING.write(os.urandom(100))
            case "twice":
                frame *= 2
        answers.write(frame)
        answers.flush()
        if failing == "talk":
            time.sleep(0.1)
            answers.write(frame)
            answers.flush()


def _write_for_ever(answers: BinaryIO) -> NoReturn:
    while True:
        answers.write(bytes(65536))


if __name__ == "__main__":
    behaviours = [word for word in sys.argv[1:] if not word.startswith("-v")]
    with open("helper.pid", "w") as file:
        file.write(str(os.getpid()))
    _Helper("".join(behaviours)).serve(sys.stdin.buffer, sys.stdout.buffer)
