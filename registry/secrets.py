"""Stream credentials at rest: AES-256-GCM with keys from a file.

What is encrypted carries the id of its key, so that keys can be changed: the last key of the file encrypts, all of them
decrypt.  It is tied to its camera and stream: copied into another row it is refused, and nobody can have a password
sent to a camera of his own.  No error of this module tells what was encrypted, or a key.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nodeagent.contract.errors import AgentError, ConfigError, Fault
from nodeagent.infra.files import sync_file, sync_folder, write_atomically

#: Bytes of a key: AES-256.
KEY_BYTES: Final = 32
#: Bytes of a nonce: what GCM is made for.  Random ones are safe for 2^32 encryptions with one key.
NONCE_BYTES: Final = 12
#: Random bytes of a key's id.
ID_BYTES: Final = 4
#: Where the settings name the file.
FIELD: Final = "secrets.key_file"
#: Rights that nobody but the owner may have.
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FORM: Final = "v1"
_LINE = re.compile(r"([0-9a-f]{8}) ([0-9a-f]{64})")
_HEADER: Final = "# Keys of stream credentials, oldest first; the last one encrypts.  Every registry needs this file.\n"


class Unreadable(AgentError):
    """A credential cannot be decrypted: its key is missing, or it was changed.  A person must mend the key file, or
    give the credential anew.
    """


@dataclass(frozen=True, slots=True)
class Key:
    """One key; its bytes are not printed."""

    key_id: str
    material: bytes = field(repr=False)


class Vault:
    """Encrypts and decrypts stream credentials."""

    def __init__(self, keys: tuple[Key, ...], reread: Callable[[], tuple[Key, ...]] | None = None) -> None:
        """Take keys, oldest first.

        Args:
            keys: at least one.
            reread: asked for the keys anew when one is not known: somebody changed keys on another registry.
        """
        self._reread = reread
        self._take(keys)

    def _take(self, keys: tuple[Key, ...]) -> None:
        # One assignment: other threads see the keys of one reading.
        self._keys = {key.key_id: AESGCM(key.material) for key in keys}, keys[-1].key_id

    @property
    def newest(self) -> str:
        """Id of the key that encrypts."""
        return self._keys[1]

    def seal(self, text: str, camera_id: str, stream: str) -> str:
        """Encrypt a text for one camera and stream."""
        (ciphers, key_id), nonce = self._keys, os.urandom(NONCE_BYTES)
        sealed = ciphers[key_id].encrypt(nonce, text.encode(), _bound_to(key_id, camera_id, stream))
        return f"{_FORM}.{key_id}.{_text_of(nonce + sealed)}"

    def unseal(self, sealed: str, camera_id: str, stream: str) -> str:
        """The text that was encrypted for this camera and stream.

        Raises:
            Unreadable: its key is not there, it was changed, or it belongs to another camera or stream.
        """
        form, _, rest = sealed.partition(".")
        key_id, _, body = rest.partition(".")
        what = f"credential of camera {camera_id}, stream {stream}"
        if form != _FORM:
            raise Unreadable(f"{what}: it is not encrypted as this release knows")
        cipher = self._cipher(key_id)
        if cipher is None:
            raise Unreadable(f"{what}: its key {key_id[:8]!r} is not in the key file")
        try:
            raw = base64.b64decode(body, altchars=b"-_", validate=True)
            if _text_of(raw) != body:
                raise ValueError("not how it was written")
            clear = cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound_to(key_id, camera_id, stream))
        except (InvalidTag, ValueError, binascii.Error):
            raise Unreadable(f"{what}: it was changed, or belongs to another stream") from None
        return clear.decode()

    def _cipher(self, key_id: str) -> AESGCM | None:
        if key_id not in self._keys[0] and self._reread is not None:
            # A file that is just being copied is faulty: what is known stays.
            with suppress(ConfigError):
                self._take(self._reread())
        return self._keys[0].get(key_id)


def _text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _bound_to(key_id: str, camera_id: str, stream: str) -> bytes:
    # No id holds a slash, so no two places give the same bytes.
    return f"nodeagent/{key_id}/{camera_id}/{stream}".encode()


def open_vault(path: Path, may_make: bool) -> Vault:
    """The vault whose keys stand in the file `path`.

    Args:
        path: see `[secrets]`.
        may_make: make the file, with one key, when it is missing.  Only for a database that holds no credentials yet:
            they would all be lost behind a new key.

    Raises:
        ConfigError: the file is missing and may not or cannot be made, others may read it, or it holds no keys.
    """
    if not path.exists():
        if not may_make:
            raise _fault(f"{path} is missing, and the database holds credentials: copy it from another registry")
        _make(path)
    return Vault(_read(path), lambda: _read(path))


def add_key(path: Path) -> str:
    """Append a key, which encrypts from the next start on; returns its id.

    On a site with several registries: copy the file to all of them, and then restart them.

    Raises:
        ConfigError: the file is not as `open_vault` expects it, or cannot be written.
    """
    key = _new_key()
    try:
        write_atomically(path, _text((*_read(path), key)), mode=0o600)
    except OSError as exc:
        raise _fault(f"cannot be written: {exc.strerror}") from None
    return key.key_id


def _new_key() -> Key:
    return Key(secrets.token_hex(ID_BYTES), secrets.token_bytes(KEY_BYTES))


def _text(keys: tuple[Key, ...]) -> bytes:
    return (_HEADER + "".join(f"{key.key_id} {key.material.hex()}\n" for key in keys)).encode()


def _make(path: Path) -> None:
    """Make the file with one key, unless somebody else just did."""
    try:
        if path.parent.stat().st_uid != os.geteuid():
            raise _fault(f"{path} is missing, and not made, for its folder is somebody else's")
        # Linked, not renamed: of two registries that start at once the second one must not replace the first one's
        # key.  A kill before the link leaves a file beside it that nobody reads.
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(_text((_new_key(),)))
            out.flush()
            sync_file(out.fileno())
        try:
            with suppress(FileExistsError):
                path.hardlink_to(beside)
        finally:
            beside.unlink()
        sync_folder(path.parent)
    except OSError as exc:
        raise _fault(f"{path} is missing, and cannot be made: {exc.strerror}") from None


def _read(path: Path) -> tuple[Key, ...]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            body = file.read()
    except OSError as exc:
        raise _fault(f"{path} cannot be read: {exc.strerror}") from None
    if mode & _OTHERS:
        raise _fault(f"{path} may be read by others; expected mode 0600", f"{mode:04o}")
    found: list[Key] = []
    for number, line in enumerate(body.decode(errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or any(key.key_id == match[1] for key in found):
            # What stands there may be a key with a slip of the pen.
            raise _fault(f"{path}, line {number}: expected an id of its own, a space and 64 hexadecimal digits")
        found.append(Key(match[1], bytes.fromhex(match[2])))
    if not found:
        raise _fault(f"{path} holds no key")
    return tuple(found)


def _fault(message: str, value: str = "") -> ConfigError:
    return ConfigError([Fault(FIELD, message, value)])
