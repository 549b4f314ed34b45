"""Installs the Debian packages that the tests need and this machine lacks: `python tests/install_services.py`.

Needs root, or sudo without a password.  What cannot be installed is said and left to the tests, which fail for want of
a server in CI and are skipped, with the reason, elsewhere.  The packages' own services are kept from starting: the
tests start private servers on free ports.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Programs that the tests start, and the packages that bring them.
PROGRAMS = {
    "/usr/lib/rabbitmq/bin/rabbitmq-server": ["rabbitmq-server"],
    "/usr/bin/redis-server": ["redis-server"],
    "/usr/sbin/mariadbd": ["mariadb-server"],
    "/usr/bin/chromium": ["chromium"],
    "/usr/bin/systemd-analyze": ["systemd"],
    "/usr/bin/ip": ["iproute2"],
}
#: The RTSP server is a library of the system's own Python.
RTSP_PYTHON = "/usr/bin/python3"
#: From each of the packages of plug-ins, what the server of the tests is made of.
RTSP_ELEMENTS = ("opusenc", "rtph264pay", "rtph265pay", "rtpjpegpay", "h264parse", "h265parse", "voaacenc")
RTSP_PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
RTSP_PROBE += f"Gst.init(None); assert all(Gst.ElementFactory.find(name) for name in {RTSP_ELEMENTS})"
RTSP_PACKAGES = ["python3-gi", "gir1.2-gst-rtsp-server-1.0"]
RTSP_PACKAGES += ["gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad"]

#: Run as root with the packages as arguments.  dpkg asks policy-rc.d whether it may start a package's service; where
#: none stands in the way, ours does, and goes again whatever happens.
INSTALL = """
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
"""


def missing() -> list[str]:
    """Packages whose programs are not there."""
    wanted = [name for program, packages in PROGRAMS.items() if not Path(program).exists() for name in packages]
    return wanted + ([] if _has_rtsp() else RTSP_PACKAGES)


def _has_rtsp() -> bool:
    if not Path(RTSP_PYTHON).exists():
        return False
    return subprocess.run([RTSP_PYTHON, "-c", RTSP_PROBE], capture_output=True, check=False).returncode == 0


def as_root() -> list[str] | None:
    """How to run a command as root without being asked; None when there is no way."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def install(packages: Sequence[str]) -> str:
    """Install them; returns why not, empty when done."""
    prefix = as_root()
    if shutil.which("apt-get") is None:
        return "this is no Debian or Ubuntu"
    if prefix is None:
        return "neither root nor sudo without a password"
    done = subprocess.run([*prefix, "sh", "-c", INSTALL, "install", *packages], check=False, stdout=subprocess.DEVNULL)
    return f"apt-get ended with {done.returncode}" if done.returncode else ""


def main() -> int:
    """Install what is missing; 1 when something still is and this is CI."""
    packages = missing()
    if not packages:
        return 0
    print(f"installing for the tests: {' '.join(packages)}", flush=True)
    why = install(packages)
    left = missing()
    if left:
        print(
            f"NOT INSTALLED ({why or 'installed, yet not usable'}): apt-get install {' '.join(left)}", file=sys.stderr
        )
    return 1 if left and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
