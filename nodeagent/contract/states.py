"""Names of what a child may be doing, with the hint that a person gets.

The same words stand on the status board, in `nodeagent status`, in logs and in reports.  A worker may only show a state
of this table, so that no page has to guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a child says of its own work."""

    STARTING = "starting"
    RUNNING = "running"
    IDLE = "idle"
    DRAINING = "draining"
    # Capture.
    CONNECTING = "connecting"
    CAPTURING = "capturing"
    STALLED = "stalled"
    SOURCE_DOWN = "source_down"
    AUTH_FAILED = "auth_failed"
    NO_VIDEO = "no_video"
    BAD_STREAM = "bad_stream"
    SPARSE_KEYFRAMES = "sparse_keyframes"
    SOURCE_ENDED = "source_ended"
    STORAGE_FULL = "storage_full"
    STORAGE_MISSING = "storage_missing"
    DISK_ASIDE = "disk_aside"
    RING_FULL = "ring_full"
    ANALYSE_DOWN = "analyse_down"
    SOFTWARE_DECODE = "software_decode"
    # Peers.
    BUS_DOWN = "bus_down"
    REDIS_DOWN = "redis_down"
    DATABASE_DOWN = "database_down"
    PUSH_FAILING = "push_failing"
    LISTEN_FAILED = "listen_failed"
    REGISTRY_DOWN = "registry_down"
    REGISTRY_REFUSES = "registry_refuses"
    CAMERA_UNFIT = "camera_unfit"
    # Models.
    LOADING_MODEL = "loading_model"
    BAD_MODEL = "bad_model"
    ANALYSIS_FAILING = "analysis_failing"
    # What the supervisor sees from outside.
    HANGING = "hanging"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a state tells a person.

    Attributes:
        problem: whether somebody should look.
        hint: what to do about it; empty when nothing is wrong.
    """

    problem: bool
    hint: str = ""


MEANING: dict[State, Meaning] = {
    State.STARTING: Meaning(False),
    State.RUNNING: Meaning(False),
    State.IDLE: Meaning(False),
    State.DRAINING: Meaning(False),
    State.CONNECTING: Meaning(False),
    State.CAPTURING: Meaning(False),
    State.STALLED: Meaning(True, "no packets arrive: check the camera's load and the network between"),
    State.SOURCE_DOWN: Meaning(True, "the source does not answer: check power, address, port and the file's path"),
    State.AUTH_FAILED: Meaning(True, "the camera refuses user or password: correct them in the camera's url"),
    State.NO_VIDEO: Meaning(True, "the stream carries no video: check the path part of the camera's url"),
    State.BAD_STREAM: Meaning(True, "the video cannot be read: check the camera's codec and encoder settings"),
    State.SPARSE_KEYFRAMES: Meaning(
        True, "clips and alarms come as late as key frames: switch off the camera's smart codec (H.264+, H.265+)"
    ),
    State.SOURCE_ENDED: Meaning(True, "the file is at its end: set loop = true to play it again"),
    State.STORAGE_FULL: Meaning(True, "the pool's disk is full: lower quota_gb or reserve_gb, or add space"),
    State.STORAGE_MISSING: Meaning(
        True, "no pool disk with a marker file: mount it, or run `nodeagent pool init PATH`"
    ),
    State.DISK_ASIDE: Meaning(
        True, "a pool disk refuses or does not answer: the others take its clips; check it, it is taken back by itself"
    ),
    State.RING_FULL: Meaning(
        True, "shared memory (/dev/shm) is full: enlarge it, or lower sample_width or the number of cameras"
    ),
    State.ANALYSE_DOWN: Meaning(
        True, "the sub-stream is away, so the main stream is analysed: check the url of the camera's `analyse`"
    ),
    State.SOFTWARE_DECODE: Meaning(
        True, 'the decoder of [capture] hardware_decode cannot be used: check driver and device, or set it to ""'
    ),
    State.BUS_DOWN: Meaning(True, "the broker does not answer: clips wait on disk; check [bus] url and the broker"),
    State.REDIS_DOWN: Meaning(True, "Redis does not answer: check [redis] url and the server"),
    State.DATABASE_DOWN: Meaning(
        True, "the database does not answer: alarms wait in their queue; check [database] url"
    ),
    State.PUSH_FAILING: Meaning(True, "the push target refuses or does not answer: check [[push]] url and its server"),
    State.LISTEN_FAILED: Meaning(
        True, "its port cannot be taken, see the detail: correct [endpoint] or [registry], or stop who has the port"
    ),
    State.REGISTRY_DOWN: Meaning(
        True, "no registry answers: all cameras run on, none moves; check [registry] urls and the registries"
    ),
    State.REGISTRY_REFUSES: Meaning(
        True, "the registry refuses this node, see the detail: correct [registry] token, or the node's id"
    ),
    State.CAMERA_UNFIT: Meaning(
        True, "a camera of this node cannot run here, see the detail: give the node its model or class, or move it"
    ),
    State.LOADING_MODEL: Meaning(False),
    State.BAD_MODEL: Meaning(True, "the model cannot serve: see the detail, correct the model's TOML or file"),
    State.ANALYSIS_FAILING: Meaning(
        True, "clips are recorded but not analysed: see the detail; check the model, free memory and the pool's disk"
    ),
    State.HANGING: Meaning(True, "the work loop stands still: it is being restarted; its traceback is in the log"),
}
