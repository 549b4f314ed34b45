"""`python -m registry`: the same as the command `registry`."""

from registry.cli import main

if __name__ == "__main__":
    main()
