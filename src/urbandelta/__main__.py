"""`python -m urbandelta` is the `urbandelta` command."""

from urbandelta.cli import main

main()
