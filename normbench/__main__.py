"""`python -m normbench` is `normbench`."""

from normbench.cli import main

main()
