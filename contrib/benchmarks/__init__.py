"""What contrib/bench measures, and how: `program.py` is the command, `figures.py` what a row is."""
