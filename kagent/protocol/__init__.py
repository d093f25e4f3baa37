"""The ssh agent protocol as values: bytes in, records out (RFC 9987, RFC 4251 section 5).

No sockets, no kernel, no clock.
"""
