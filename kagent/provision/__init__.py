"""Gives the kernel the keys that request_key(2) asks for.

As root, for one key and a few seconds: the policy says who may have it, a backend fetches it, and
the kernel takes it.  Who asked for it can sign with it, and has never seen it.
"""
