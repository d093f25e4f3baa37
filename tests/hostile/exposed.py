"""The keyring of a session in which the agent keeps what others may use while it isn't locked."""

from __future__ import annotations

from kagent.custody.identity import Custody, Identity
from kagent.custody.rings import ANCHOR
from kagent.keyctl import KernelKeyError, Keyring, session_keyring, syscalls
from tests.hostile.asking import Pair
from tests.support.programs import SECONDS, Person, wait_until


def put_a_key_where_others_reach_it(person: Person) -> None:
    """Only a record, so that it needs no kernel that signs."""
    identity = Identity(Pair.new().blob, "open", Custody.KERNEL)

    def put() -> bool:
        try:
            anchor = syscalls.add_key("keyring", "kagent:session", None, syscalls.SESSION_KEYRING)
            syscalls.setperm(anchor, ANCHOR)
            syscalls.add_key("user", identity.description, identity.write(), anchor)
        except KernelKeyError:
            return False  # the quota is used up, until the kernel has collected what was freed
        return True

    with person.start("true", preexec_fn=lambda: wait_until(put)) as process:
        assert process.wait(SECONDS) == 0


def reached() -> list[int]:
    """What is in it."""
    anchor = session_keyring().find("keyring", "kagent:session")
    return list(Keyring(anchor.serial).keys()) if anchor else []
