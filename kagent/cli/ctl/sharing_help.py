"""What kagentctl says of share, shared, unshare and accept: each step as keyctl(1) does it."""

SHARE = """\
Lets another user of this machine sign with a key of this login that has no constraints and that
the kernel signs with.  The other user must have run `kagentctl accept --from YOU` before.

  keyctl setperm KEY 0x09390000    who possesses it may view it and sign, no more; its owner keeps
                                   what it takes to take it back
  keyctl link KEY INBOX            INBOX is the other user's keyring kagent:from:UID:YOU
  keyctl link RECORD INBOX         a copy of the record, 0x0b330000: comment and certificate

The other user can't read the key, change it, or pass it on, but can sign with it around any agent,
and can destroy it (keyctl invalidate needs no more than signing does).  The other user keeps it
when you log out, until you unshare it, remove it, or load it again."""
SHARED = """\
Lists which user can sign with which key of yours, and which keys others let you sign with.
The first is what the keyrings kagent:from:UID:YOU hold that other users show in /proc/keys."""
UNSHARE = """\
Ends at once what `kagentctl share` began.

  keyctl unlink KEY INBOX          and the record
  keyctl setperm KEY 0x39010000    when nobody has it any more: as keyctl padd makes it
  keyctl revoke KEY                instead, if the other user has closed INBOX to you: then the key
                                   is gone for you too"""
ACCEPT = """\
Lets another user of this machine give you keys to sign with: your kagent lists them, marked with
their owner.

  keyctl newring kagent:from:UID:USER @u
  keyctl setperm INBOX 0x3f010007  others may see it, read which keys are in it, and write to it,
                                   since the kernel can't name one user who may

Anybody can link keys there; kagent takes none but USER's.  Anybody can also unlink them, which
ends the sharing.  To accept no more: keyctl unlink %:kagent:from:UID:USER @u"""
