"""A twin's voice servers: one order for all of them, and whoever was away is brought to what they speak with.

An order goes in two phases. First every server that answers gets the version, checks, loads and probes it, heard by
nobody. If one refuses, all go on as before, and the order says who refused and why. Else the store's pointer is moved,
which decides it, and every server is pointed at the version.

A server that does not answer when an order begins is left out of it, and one that dies between the two phases is left
behind: neither is asked again before it speaks with what the pointer says, which is seen to within seconds of its
return. The same mends an order whose giver died: before the pointer moved nothing has changed, and what was prepared is
dropped; after it, every server is brought there.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from typing import Any

from infra.adapters import BASE, AdapterStore, Aim, voice_name
from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.voice.chat import Audience, Voice
from infra.voice.pool import Member, Pool
from infra.voice.servers import Server

# How often a server is asked whether it is there; one that failed, when it has rested.
CHECK_S = 2.0


class Fleet:
    """Voice servers as one voice. Safe to use from any thread."""

    def __init__(self, servers: Sequence[Server], store: AdapterStore, *, base: str) -> None:
        """`base` names the base model in voices; `store` holds the adapters and the pointer that all follow."""
        self.base, self.store, self.pool = base, store, Pool(servers, store.aim())
        # One order at a time.
        self._changing = threading.RLock()
        # Guards who counts as aligned while the aim moves: what was seen before an order says nothing after it.
        self._settling = threading.Lock()
        self._ordering, self._orders = False, 0
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._keep, args=(m,), daemon=True) for m in self.pool.members]

    def open(self) -> None:
        """Look at every server once, then keep an eye on each."""
        self._on_all(self.pool.members, self._look)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop looking. An order that runs ends by itself."""
        self._closing.set()

    @property
    def voice(self) -> str:
        """The name of the voice that new requests get."""
        return self._named(self.store.current())

    @property
    def busy(self) -> bool:
        """Whether anybody is being answered."""
        return any(member.load for member in self.pool.members)

    @property
    def broken(self) -> bool:
        """Never: servers come back by themselves."""
        return False

    def speaker(self) -> Voice:
        return self.pool

    def promote(self, version: str | None) -> float:
        """Let a version speak everywhere; returns seconds. A canary ends.

        Raises what the store raises, and ServiceTrouble when no server answers or one refuses; all then speak on as
        before.
        """
        with self._changing:
            if version is not None:
                self.store.may_speak(version)
            return self._order(version, Aim(version), lambda: self.store.point(version))

    def rollback(self) -> float:
        """Back to the voice before."""
        with self._changing:
            return self.promote(self.store.previous())

    def start_canary(self, version: str, share: float, *, now: datetime) -> float:
        """Let a version answer the same share of conversations on every server. Raises as `promote`."""
        with self._changing:
            current = self.store.current()
            self.store.may_try(version, share, beside=current)
            aim = Aim(current, version, share)
            return self._order(version, aim, lambda: self.store.try_out(version, share, now=now))

    def stop_canary(self, version: str = "") -> str:
        """Let the voice answer everybody again; returns the version that was on trial. Raises as `store.on_trial`."""
        with self._changing:
            ended, current = self.store.on_trial(version).version, self.store.current()
            self._order(None, Aim(current), lambda: self.store.end_canary(version))
            return ended

    def promote_canary(self, version: str) -> float:
        """As `promote`, only while `version` is the canary; else raises UserMistake."""
        with self._changing:
            return self.promote(self.store.on_trial(version).version)

    def pin(self, version: str | None, audience: Audience) -> float:
        """Raises UserMistake: all servers speak alike."""
        raise UserMistake(f"{version or BASE!r} cannot be pinned to {audience}: voice.urls has no pinned voices yet.")

    def unpin(self, audience: Audience) -> str | None:
        """Forget a pin of the time when the twin spoke by itself; returns its version. Raises as `store.unpin`."""
        return self.store.unpin(audience)

    def listing(self) -> dict[str, Any]:
        """What speaks, what spoke before, what is on trial, what there is, and who answers."""
        canary = self.store.canary()
        on_trial = {**asdict(canary), "voice": self._named(canary.version), "speaks": True} if canary else None
        head = {"voice": self.voice, "previous": self.store.previous(), "canary": on_trial}
        found = {"pinned": [], "adapters": self.store.listing(self.store.current())}
        return {**head, **found, "servers": self._states()}

    def ready(self) -> dict[str, Any]:
        """Whether anybody can be answered, and by which servers."""
        ready = any(member.answers and member.aligned for member in self.pool.members)
        load = sum(member.load for member in self.pool.members)
        head = {"status": "ready" if ready else "unready", "voice": self.voice, "running": load, "waiting": 0}
        return {**head, "aim": asdict(self.pool.aim), "servers": self._states()}

    def _states(self) -> list[dict[str, object]]:
        return [member.state() for member in self.pool.members]

    def _named(self, version: str | None) -> str:
        return voice_name(self.base, version)

    def _order(self, version: str | None, aim: Aim, decide: Callable[[], object]) -> float:
        """Prepare `version` everywhere, `decide`, then point everywhere; returns seconds. Raises as `promote`."""
        began = time.perf_counter()
        if version is not None:
            self.store.verify(version)
        members = [member for member in self.pool.members if member.answers]
        if not members:
            raise ServiceTrouble("No voice server answers: nothing was changed. understudy doctor says what is wrong.")
        aligned: dict[Member, bool] = {}
        with self._settling:
            self._ordering = True
        try:
            refusals = self._on_all(members, lambda member: self._prepare(member, version))
            if refusals:
                raise ServiceTrouble(refused(refusals))
            decide()
        except UnderstudyError:
            failed = self._on_all(members, lambda member: self._point(member, self.pool.aim))
            aligned = {member: member not in failed for member in members}
            raise
        else:
            failed = self._on_all(members, lambda member: self._point(member, aim))
            aligned = {member: member in members and member not in failed for member in self.pool.members}
            self.pool.aim = aim
        finally:
            self._end(aligned)
        return time.perf_counter() - began

    def _end(self, aligned: Mapping[Member, bool]) -> None:
        """Note who speaks as all shall after an order; what others have seen during it counts no more."""
        with self._settling:
            for member, so in aligned.items():
                member.aligned = so
            self._ordering, self._orders = False, self._orders + 1

    def _prepare(self, member: Member, version: str | None) -> None:
        with member.ordering:
            member.server.prepare(version, self.store)

    def _point(self, member: Member, aim: Aim) -> None:
        with member.ordering:
            member.server.point(aim, self.store)

    def _on_all(self, members: Sequence[Member], act: Callable[[Member], object]) -> dict[Member, UnderstudyError]:
        """Do something with every server at once; what went wrong, by server."""
        wrong: dict[Member, UnderstudyError] = {}

        def one(member: Member) -> None:
            try:
                act(member)
            except UnderstudyError as error:
                wrong[member] = error

        with ThreadPoolExecutor(len(members)) as pool:
            list(pool.map(one, members))
        return wrong

    def _keep(self, member: Member) -> None:
        """The thread of one server."""
        while not self._closing.wait(max(CHECK_S, member.rests_until - time.monotonic())):
            self._check(member)

    def _check(self, member: Member) -> None:
        """Look at a server, and bring it to what all speak with where it does not."""
        orders, aim = self._orders, self.pool.aim  # in this order: an order that ends in between is then seen
        if not self._look(member):
            return
        try:
            self._bring(member, aim, orders)
        except (UnderstudyError, OSError) as error:
            member.failed(ServiceTrouble(f"It cannot be brought to {self._named(aim.version)}: {error}"))

    def _look(self, member: Member) -> bool:
        """See how a server is; returns whether it has to be brought to what all speak with."""
        orders = self._orders
        try:
            seen = member.server.look(self.pool.aim)
        except UnderstudyError as trouble:
            member.silent(trouble)
            return False
        member.seen(seen)
        return self._settled(member, orders, aligned=seen.aligned) and not seen.aligned

    def _settled(self, member: Member, orders: int, *, aligned: bool) -> bool:
        """Note whether a server speaks as it shall, unless an order came between."""
        with self._settling:
            settled = not self._ordering and orders == self._orders
            if settled:
                member.aligned = aligned
            return settled

    def _bring(self, member: Member, aim: Aim, orders: int) -> None:
        """Let a server that was away speak as all do."""
        with member.ordering:
            for version in filter(None, (aim.version, aim.canary)):
                self.store.may_speak(version)
                self.store.verify(version)
                member.server.prepare(version, self.store)
            if not self._ordering and orders == self._orders:
                member.server.point(aim, self.store)
                if self._settled(member, orders, aligned=True):
                    member.well()


def refused(refusals: dict[Member, UnderstudyError]) -> str:
    """Who refused an order, and why, as one sentence."""
    each = "; ".join(f"{member.server.url}: {str(error).rstrip('.')}" for member, error in refusals.items())
    return f"Not every voice server could prepare it, so all speak on as before: {each}."
