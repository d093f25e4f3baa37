"""kagent in a booted Debian, with systemd, PAM and sshd, as its user meets it."""
