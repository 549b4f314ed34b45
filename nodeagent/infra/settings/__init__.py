"""The agent's configuration: `sections` says what may stand in the TOML, `loader` reads it and names every fault."""
