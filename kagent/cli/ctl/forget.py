"""kagentctl forget: the keys that outlive a service go, as they should when the user does."""

from __future__ import annotations

from ...custody.identity import PREFIX
from ...custody.rings import Place
from ...keyctl import USER_KEYRING, Keyring


def run() -> int:
    """Destroy what kagent --keyring user has anchored; the exit code."""
    user = Keyring.special(USER_KEYRING)
    found = user.find("keyring", f"{PREFIX}{Place.USER}")
    if found is not None:
        anchor = Keyring(found.serial)
        for key, _ in anchor.described():
            anchor.destroy(key)
        user.unlink(anchor)
    return 0
