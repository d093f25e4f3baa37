"""kagent-add: ssh-add's command line, and what it does."""
