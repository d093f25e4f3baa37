"""FIDO tokens: OpenSSH's test provider, tokens that are touched or want a PIN, and their user."""

from __future__ import annotations

from tests.machine.environment import sk_dummy

PROVIDER = str(sk_dummy())
_REAL_HELPER = "/usr/lib/openssh/ssh-sk-helper"

# A token that is touched when its user has seen the notice, if there is one to see it.
_READS = """\
#!/usr/bin/python3 -SE
import os, subprocess, sys, time
def touch():
    for _ in range(2000):
        if not os.path.exists("askpass.log") or open("askpass.log").read().endswith("\\n"):
            return
        time.sleep(0.01)
header = sys.stdin.buffer.read(4)
request = sys.stdin.buffer.read(int.from_bytes(header, "big"))
"""
TOUCHED = f"""\
{_READS}
touch()
subprocess.run(["{_REAL_HELPER}"], input=header + request)
"""
# And one with a PIN: what OpenSSH's test provider can't be.
WANTS_PIN = f"""\
{_READS}
if request.endswith(b"\\0\\0\\0\\x041234"):
    subprocess.run(["{_REAL_HELPER}"], input=header + request)
else:
    if request.endswith(b"\\0\\0\\0\\0"):  # no PIN yet
        touch()
    sys.stdout.buffer.write(bytes((0, 0, 0, 9, 5, 0, 0, 0, 0, 0, 0, 0, 43)))
"""
# A user at a display, who types what `answer` has.
ASKPASS = """\
#!/bin/sh
echo "$SSH_ASKPASS_PROMPT: $1" >>askpass.log
[ "$SSH_ASKPASS_PROMPT" != none ] || exec sleep 60
cat answer
"""
