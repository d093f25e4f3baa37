"""kagentctl: what ssh-agent never had."""
