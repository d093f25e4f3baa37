"""The commands: arguments, terminal, exit codes."""
