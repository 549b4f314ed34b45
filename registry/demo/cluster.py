"""The demo's registries and agents as one thing: started, looked at, killed, ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nodeagent.contract.errors import AgentError, Unavailable
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.files import write_atomically
from nodeagent.infra.registry_api import RegistryApi
from nodeagent.infra.settings.registry import RegistrySettings
from nodeagent.infra.storage import init_pool
from registry.demo.plan import NODES, REGISTRIES, Plan, agent_toml, cameras_toml, registry_toml
from registry.demo.programs import Program, command
from registry.demo.watch import Capture, captures, once_each

#: Between two looks, seconds: how exact the figures are.
LOOK_S = 0.1

_Found = TypeVar("_Found")


class NotShown(AgentError):
    """Something that the demo is about did not happen in time."""


class Cluster:
    """Two registries, two agents; who captures is read from the nodes, who owns and leads from the registries."""

    def __init__(self, plan: Plan, environment: Mapping[str, str]) -> None:
        self.plan = plan
        self._environment = environment
        self._admin = ""
        self.programs: dict[str, Program] = {}
        self._states = {node: plan.state_of(node) for node in NODES}

    def start(self) -> None:
        """Write every configuration, make the tokens, and start all programs; returns before they are ready.

        Raises:
            Unavailable: a command failed.
        """
        plan = self.plan
        for name in REGISTRIES:
            plan.config_of(name).write_text(registry_toml(plan, name), encoding="utf-8")
        self._admin = self._token("demo", "--role", "admin")
        write_atomically(plan.token_file, self._admin.encode(), mode=0o600)
        # In no order from here on: whoever needs another one waits for it.
        for name in REGISTRIES:
            self._start(name, "registry", "serve")
        for node in NODES:
            text = agent_toml(plan, node, self._token(node, "--node", node))
            # It holds the node's token.
            write_atomically(plan.config_of(node), text.encode(), mode=0o600)
            plan.pool_of(node).mkdir(parents=True)
            init_pool(plan.pool_of(node))
            self._start(node, "nodeagent", "run")
        plan.cameras_file.write_text(cameras_toml(plan), encoding="utf-8")

    def bring_in(self) -> str:
        """Write the cameras into the registry; returns what the command said."""
        return self._command("import", str(self.plan.cameras_file))

    def leader(self, registry: str) -> str:
        """Who leads, as this registry says; empty when it does not answer or nobody does."""
        try:
            return str(self._ask(registry, lambda api: api.document("GET", "cluster"))["leader"])
        except AgentError:
            return ""

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as the registries list them; empty while none answers."""
        try:
            return self._ask("", lambda api: list(api.rows("nodes")))
        except AgentError:
            return []

    def owners(self) -> dict[str, str]:
        """By camera: the node that owns it; empty while no registry answers."""
        try:
            places = self._ask("", lambda api: list(api.rows("assignments")))
        except AgentError:
            return {}
        return {place["camera_id"]: place["owner"]["node_id"] for place in places if place["phase"] == "owned"}

    def captures(self) -> dict[str, list[Capture]]:
        """By camera: every process that gets its pictures now."""
        return captures(self._states, time.time_ns())

    def once_each(self) -> bool:
        """Whether every camera is captured by exactly one process, on the node that owns it."""
        found, owners = self.captures(), self.owners()
        return once_each(found, self.plan.camera_ids) and all(
            owners.get(camera) == found[camera][0].node for camera in self.plan.camera_ids
        )

    def until(self, what: str, within_s: float, check: Callable[[], _Found]) -> _Found:
        """Wait until something is so; returns what `check` found.

        Raises:
            NotShown: it was not within `within_s` seconds.
            Unavailable: a program ended by itself meanwhile.
        """
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            found = check()
            if found:
                return found
            self._look_for_the_dead()
            time.sleep(LOOK_S)
        raise NotShown(f"not within {within_s:.0f} s: {what}")

    def end(self) -> None:
        """End all programs; those that do not end are killed."""
        # Registries too, and at once: agents would hand their cameras to each other while one leads.
        for program in self.programs.values():
            program.ask_to_stop()
        for program in self.programs.values():
            program.end()

    def _start(self, name: str, module: str, verb: str) -> None:
        arguments = (module, verb, "-c", str(self.plan.config_of(name)))
        program = Program(name, arguments, self.plan.folder / f"{name}.log", self._environment)
        # Known before it runs, so that an interrupt in between ends it too.
        self.programs[name] = program
        program.start()

    def _token(self, *arguments: str) -> str:
        config = str(self.plan.config_of(REGISTRIES[0]))
        return command(("registry", "token", "create", *arguments, "-c", config), self._environment)

    def _command(self, *arguments: str) -> str:
        given = {"REGISTRY_URL": " ".join(self.plan.urls), "REGISTRY_TOKEN_FILE": str(self.plan.token_file)}
        return command(("registry", *arguments), {**self._environment, **given})

    def _ask(self, registry: str, ask: Callable[[RegistryApi], _Found]) -> _Found:
        urls = (f"http://127.0.0.1:{self.plan.ports[registry]}",) if registry else self.plan.urls
        settings = RegistrySettings.model_validate({"urls": urls, "token": self._admin})
        with RegistryApi(settings, SystemClock()) as api:
            return ask(api)

    def _look_for_the_dead(self) -> None:
        for program in self.programs.values():
            if program.ended_by_itself:
                raise Unavailable(f"{program.name} ended: see {program.log_path}")
