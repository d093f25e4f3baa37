"""The parent process: holds the socket and the keyrings, and forks all others."""
