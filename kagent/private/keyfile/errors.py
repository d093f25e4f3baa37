"""What is wrong with a key file, in OpenSSH's words (ssherr.c)."""


class KeyFileError(ValueError):
    """The file holds no private key that ssh can use."""


class UnsupportedCipher(KeyFileError):
    """The key is encrypted with what can't be decrypted here; the text says what to do."""

    def __init__(self, remedy: str) -> None:
        super().__init__(f"key encrypted using unsupported cipher; {remedy}")


class ManyPrimes(KeyFileError):
    """An RSA key that neither the kernel nor the library takes."""

    def __init__(self) -> None:
        super().__init__("an RSA key of more than two primes is not supported")


class WrongPassphrase(KeyFileError):
    """The key is encrypted, and not with the passphrase given."""

    def __init__(self) -> None:
        super().__init__("incorrect passphrase supplied to decrypt private key")
