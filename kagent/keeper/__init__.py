"""The parent process and its one-shot workers."""
