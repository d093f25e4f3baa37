"""OpenSSH's helpers and files: ssh-askpass, ssh-sk-helper, known_hosts, its way to write times."""
