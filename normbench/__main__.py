"""Entry point of `python -m normbench`, which equals the command `normbench`."""

from normbench.cli import main

main()
