"""What the attackers run: small programs with nothing but the rights of an ordinary user."""
