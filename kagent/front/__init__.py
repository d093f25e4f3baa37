"""The front: serves clients, decides, and holds nothing that is secret."""
