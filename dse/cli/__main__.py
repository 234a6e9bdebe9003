"""`python -m dse.cli`, for where no `enos` is on the path."""

from dse.cli import main

main()
