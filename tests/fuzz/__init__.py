"""What reads what others wrote, given anything: contrib/fuzz, and tests/unit/test_fuzz.py."""
