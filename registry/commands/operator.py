"""The commands that ask registries over HTTP: where each is, and its line in the help.

Named by dotted path and imported when called, so that no other command waits for them.
"""

from __future__ import annotations

from typing import Final

#: Command: where it is, and its line in the help.
OPERATOR: Final[dict[str, tuple[str, str]]] = {
    "nodes": ("registry.commands.lists:nodes", "List nodes and what is wrong with them."),
    "cameras": ("registry.commands.lists:cameras", "List cameras as they are wanted."),
    "assignments": ("registry.commands.lists:assignments", "List which node has which camera, and why."),
    "rules": ("registry.commands.lists:rules", "List rules of one camera or of all."),
    "probe": ("registry.commands.probe:probe", "Tell what a camera's streams answer now."),
    "explain": ("registry.commands.explain:explain", "Tell why a camera is where it is."),
    "move": ("registry.commands.orders:move", "Give a camera to a node by hand."),
    "drain": ("registry.commands.orders:drain", "Let a node hand its cameras over."),
    "undrain": ("registry.commands.orders:undrain", "Take the order to drain a node back."),
    "forget": ("registry.commands.orders:forget", "Forget a dead node that is gone for good."),
    "thaw": ("registry.commands.orders:thaw", "End a freeze of evictions."),
    "import": ("registry.commands.bring_in:bring_in", "Write the cameras of a TOML file into the registry."),
}
