"""The subcommands of `registry`, one file each."""
