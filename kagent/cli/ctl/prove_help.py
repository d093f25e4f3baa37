"""What kagentctl says of prove."""

PROVE = """\
As root: reads the memory of every process of the agent (all that it has started, too) and says
whether anything of these private keys is in it: RSA's p, q, d, dp, dq and qinv, ECDSA's scalar,
Ed25519's seed and what is made of it, in each order in which libraries keep numbers, whole or in
parts of fifteen bytes.  Beside it, by the same search, a control: a process of its own, before and
after it loads the same keys.  The agent stands still meanwhile, for a second or two.

Exits with 0 if nothing was found but in the control, with 1 if something was, and with 2 if that
can't be told.  Give the agent something to do first, and see that it has the key: ssh-add -T.

    sudo --preserve-env=SSH_AUTH_SOCK "$(command -v kagentctl)" prove ~/.ssh/id_ed25519

What a process keeps encrypted is not found.  So OpenSSH's ssh-agent shows nothing either: it keeps
keys encrypted, beside all that is needed to decrypt them (PROTOCOL: sshkey_shield_private).
kagent's long-lived processes have nothing of the kind."""
