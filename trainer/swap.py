"""The last stage: a running twin takes the new voice, or the next start does."""

from typing import Any

from infra.adapters import AdapterStore
from infra.remote import Remote
from infra.settings import Settings


def promote(settings: Settings, store: AdapterStore, version: str) -> dict[str, Any]:
    """Let `version` speak. The running process checks, probes and points; without one only the pointer moves.

    Raises what the running process or the store says against it; the voice before then stays.
    """
    remote = Remote.find(settings)
    if remote is None:
        store.point(version)
        return {"voice": version, "running": False}
    answer = remote.post("/admin/voices/promote", version=version)
    return {**answer, "running": True}
