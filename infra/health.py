"""Whether a part of the twin works, as whoever watches it asks: `understudy health PART`.

A part with a port is asked there. One without leaves a sign of life while it does its work, and not while it only runs:
a worker while it has its broker, the scheduler at each look at its clock, a bot after each round.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

from infra.errors import ServiceTrouble
from infra.remote import Remote
from infra.settings import Settings, revealed

Part = Literal["api", "worker", "beat", "bot"]
PARTS: tuple[Part, ...] = get_args(Part)
# Bound there, a server is to be reached at any of the host's addresses.
EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104  compared, not bound
# How often a part leaves a sign, and after how many seconds without one it is not well.
SIGN_S = 10.0
SILENT_S = 60.0
# How long an API may take to say that it is ready.
ANSWER_S = 5.0


def sign_file(settings: Settings, part: Part) -> Path:
    """Where a part on this host leaves its sign: several hosts may share the data folder."""
    return settings.data_folder / "run" / f"{part}.{os.uname().nodename}.alive"


def sign(settings: Settings, part: Part) -> None:
    """Say that a part is at work. A full disk takes the sign away, and not the part."""
    path = sign_file(settings, part)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def silences(settings: Settings) -> list[tuple[str, str, float]]:
    """Every part that ever left a sign in this data folder, its host, and for how many seconds it has been silent."""
    found = []
    for path in sorted((settings.data_folder / "run").glob("*.alive")):
        part, _, host = path.stem.partition(".")
        found.append((part, host, time.time() - path.stat().st_mtime))
    return found


def check(settings: Settings, part: Part) -> None:
    """Raise ServiceTrouble, with what is wrong, unless the part on this host is at work."""
    if part == "api":
        host = settings.api.host if settings.api.host not in EVERYWHERE else "127.0.0.1"
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.api.port}"
        Remote(url, revealed(settings.api.token), silence_s=ANSWER_S).get("/readyz")
        return
    path = sign_file(settings, part)
    if not path.exists():
        raise ServiceTrouble(f"The {part} has given no sign of life yet.")
    if (silent := time.time() - path.stat().st_mtime) > SILENT_S:
        raise ServiceTrouble(f"The {part} has given no sign of life for {silent:.0f} s.")
