"""The same requests to kagent and to ssh-agent: contrib/differential, and a test."""
