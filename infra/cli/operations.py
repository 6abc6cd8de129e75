"""What the bot's admins set in motion, with the parts of this installation. See `bot/community.py`, Operations."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from infra.adapters import BASE, AdapterStore
from infra.cli.compose import adapter_store, now, open_runs, set_silence, silenced
from infra.errors import ServiceTrouble
from infra.remote import Remote
from infra.runs import document
from infra.settings import Settings
from memory.journal import Journal, Judged

if TYPE_CHECKING:
    from infra.runs import Runs
    from memory.trial import Ending
    from trainer.frozen import Followed


def drop_playground(settings: Settings) -> None:
    """Remove what a playground left: a copy of memory from before the forgetting. A later one is copied anew."""
    copy = settings.data_folder / "playground"
    if copy.exists() and Remote.here(settings.model_copy(update={"data": copy})) is None:
        shutil.rmtree(copy, ignore_errors=True)


@dataclass(frozen=True)
class House:
    """Operations over this installation's journal, run table, broker and running twin."""

    settings: Settings
    journal: Journal

    @cached_property
    def runs(self) -> "Runs":
        return open_runs(self.settings, self.journal)

    def plan(self) -> Mapping[str, Any]:
        from trainer.planning import harvest_counts

        return harvest_counts(self.settings, self.journal)

    def retrain(self) -> tuple[str, bool]:
        from infra.queue import ring
        from trainer.app import queue_app
        from trainer.schedule import asked

        run, made = asked(self.settings, self.runs, self.journal, f"manual:{now().isoformat()}", {}, now=now())
        ring(queue_app(self.settings), run)
        return run.id, made

    def run(self, run_id: str) -> Mapping[str, Any]:
        return document(self.runs.get(run_id))

    def failures(self) -> Sequence[Mapping[str, Any]]:
        return [document(run) for run in self.runs.recent() if run.state == "failed"]

    def voices(self) -> Mapping[str, Any]:
        found = self._twin().get("/admin/voices")
        assert isinstance(found, dict)
        return found

    def rollback(self) -> str:
        return str(self._twin().post("/admin/voices/rollback")["voice"])

    def start_canary(self, version: str, share: float) -> None:
        self._twin().post("/admin/voices/canary", version=version, share=share)

    def stop_canary(self, version: str) -> str:
        return str(self._twin().post("/admin/voices/canary/stop", version=version)["voice"])

    def promote_canary(self, version: str) -> str:
        return str(self._twin().post("/admin/voices/canary/promote", version=version)["voice"])

    def picture(self, version: str) -> bytes:
        from trainer.card import from_json
        from trainer.evalpicture import picture
        from trainer.gate import decide

        # Adapters may be on another machine than this process.
        apart = bool(self.settings.bot.api)
        found = (
            self._twin().get(f"/admin/voices/{version}/card") if apart else adapter_store(self.settings).card(version)
        )
        card = from_json(found)
        return picture(card, decide(card))

    def silence(self, *, on: bool) -> None:
        set_silence(self.journal, on=on)

    def silenced(self) -> bool:
        return silenced(self.journal)

    def follow_forgotten(self) -> "Followed":
        from memory.graph_store import GraphStore
        from memory.tombstones import follow_tombstones
        from trainer.frozen import Followed, follow_forgotten

        if self.settings.bot.api:
            return Followed()  # the machine that keeps the adapters follows by itself, see `infra/desk/server.py`
        folder, twin = self.settings.data_folder, Remote.find(self.settings)
        follow_tombstones(folder, self.journal, creator=self.settings.answering)
        drop_playground(self.settings)
        if twin is None:
            GraphStore(self.journal).forget()  # else the twin's own graph follows, and need not be read a second time
        followed = follow_forgotten(folder, self.journal, self.runs)
        self._silence_tainted(adapter_store(self.settings), twin)
        return followed

    @staticmethod
    def _silence_tainted(store: AdapterStore, twin: Remote | None) -> None:
        """Let no voice speak on that learned what was forgotten, to whomever it speaks."""
        current, canary = store.current(), store.canary()
        if current is not None and store.tainted(current):
            twin.post("/admin/voices/promote", version=BASE) if twin is not None else store.point(None)
        elif canary is not None and store.tainted(canary.version):
            twin.post("/admin/voices/canary/stop", version=canary.version) if twin is not None else store.end_canary()
        for audience, version in store.pins().items():
            if version is not None and store.tainted(version):
                twin.post("/admin/voices/unpin", **asdict(audience)) if twin is not None else store.unpin(audience)

    def watch_canary(self) -> "Ending | None":
        """End a trial that goes badly, as a person would. The reason is journalled first: no crash loses it."""
        if not self.settings.canary.stop or self.settings.bot.api or adapter_store(self.settings).canary() is None:
            return None
        found = self.voices()
        if (trial := found["canary"]) is None:
            return None
        ending = self._ending(found["voice"], trial)
        if ending is not None:
            self.stop_canary(ending.version)
        return ending

    def _ending(self, voice: str, trial: Mapping[str, Any]) -> "Ending | None":
        """Why a trial has to end: what is journalled already, else what the figures say now, which is journalled."""
        from bot.news import of_trial
        from memory.remember import remember
        from memory.trial import Ending, endings, trial_event, trial_id, worse_in

        for known in endings(self.journal):
            if known.id == trial_id(trial["version"], trial["since"]):
                return known
        judged = self.journal.judged(since=datetime.fromisoformat(trial["since"]))
        canary, current = (judged.get(name, Judged()) for name in (trial["voice"], voice))
        worse = worse_in(canary, current, self.settings.canary)
        if worse is None:
            return None
        ending = Ending(trial["version"], trial["since"], now(), worse)
        event = trial_event(ending, reason=of_trial(ending, "en").text, canary=canary, current=current)
        remember(self.journal, [event], creator=self.settings.answering)
        return ending

    def permission(self) -> tuple[str, str] | None:
        recorded = self.settings.permissions.discord_training
        return (recorded.reference, str(recorded.date)) if recorded else None

    def _twin(self) -> Remote:
        found = Remote.find(self.settings)
        if found is None:
            raise ServiceTrouble('The twin is not running. Start it with "understudy up".')
        return found
