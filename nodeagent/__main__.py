"""`python -m nodeagent`: the same as the command `nodeagent`."""

from nodeagent.cli.main import main

if __name__ == "__main__":
    main()
