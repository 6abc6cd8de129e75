"""The run table: work that takes hours, told by rows and not by messages.

A run has a lease that its worker renews, and a fencing token that grows with every claim. Whoever holds an older token
has been replaced, however alive it feels, and may publish nothing. A unique key makes any number of schedulers
harmless; a partial unique index lets at most one run of a kind be active.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from infra.database import Migration, migrate, reading, writing
from infra.errors import ServiceTrouble, UserMistake

State = Literal["queued", "running", "succeeded", "refused", "failed", "cancelled"]

# A worker that has not renewed for this long is taken for dead: six missed heartbeats.
LEASE = timedelta(seconds=30)
ATTEMPTS = 3
# The queue whose workers train.
TRAINING = "gpu"
# A queued run whose doorbell nobody heard is rung for again after this.
UNHEARD = timedelta(seconds=20)


class Superseded(ServiceTrouble):
    """Another worker has taken this run over: stop, publish nothing."""


@dataclass(frozen=True)
class Run:
    """One run. `token` fences it; `progress` is {done, total, text}; times are text in UTC.

    Workers of `queue` may take it; `artifact` names what the one before left for the next, where they share no folder.
    """

    id: str
    kind: str
    key: str
    state: State
    stage: str
    progress: Mapping[str, Any]
    options: Mapping[str, Any]
    attempt: int
    token: int
    owner: str
    cancel_requested: bool
    error: str
    result: Mapping[str, Any]
    created: str
    started: str
    ended: str
    queue: str
    artifact: str
    # Seconds by stage, of all attempts together.
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.state in {"queued", "running"}


def m001_runs(connection: Connection) -> None:
    """Runs."""
    connection.execute(sa.text(M001))
    connection.execute(sa.text("CREATE UNIQUE INDEX one_active ON runs (kind) WHERE state IN ('queued', 'running')"))


M001 = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL UNIQUE, state TEXT NOT NULL, stage TEXT NOT NULL,
    progress TEXT NOT NULL, options TEXT NOT NULL, attempt INTEGER NOT NULL, token INTEGER NOT NULL,
    owner TEXT NOT NULL, lease_until TEXT NOT NULL, cancel_requested INTEGER NOT NULL, error TEXT NOT NULL,
    result TEXT NOT NULL, created TEXT NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL
)
"""


def m002_places(connection: Connection) -> None:
    """Runs that go from one queue's workers to another's, with what they have made so far."""
    connection.execute(sa.text("ALTER TABLE runs ADD COLUMN queue TEXT NOT NULL DEFAULT 'gpu'"))
    connection.execute(sa.text("ALTER TABLE runs ADD COLUMN artifact TEXT NOT NULL DEFAULT ''"))


def m003_stages(connection: Connection) -> None:
    """What each stage of a run took."""
    connection.execute(sa.text("ALTER TABLE runs ADD COLUMN stages TEXT NOT NULL DEFAULT '{}'"))


MIGRATIONS: list[Migration] = [m001_runs, m002_places, m003_stages]


class Runs:
    """The table. Every change is one conditional statement; its row count says whether it happened."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine, "runs", MIGRATIONS)

    def now(self) -> datetime:
        """The time that leases are kept by: PostgreSQL's, so that hosts agree whose clocks do not, else this host's.

        Raises ServiceTrouble.
        """
        if self._engine.dialect.name != "postgresql":
            return datetime.now(UTC)
        with reading(self._engine) as connection:
            found: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return found.astimezone(UTC)

    def create(
        self, kind: str, key: str, *, options: Mapping[str, Any], now: datetime, queue: str = TRAINING
    ) -> tuple[Run, bool]:
        """A new run; or the one that is active already, or that had this key before, and False."""
        with writing(self._engine) as connection:
            made = one(
                connection,
                "INSERT INTO runs VALUES (:id, :kind, :key, 'queued', '', '{}', :options, 0, 0, '', :now, 0, '', '{}',"
                " :now, '', '', :queue, '', '{}') ON CONFLICT DO NOTHING RETURNING *",
                id=uuid.uuid4().hex[:12],
                kind=kind,
                key=key,
                options=json.dumps(dict(options)),
                now=stamp(now),
                queue=queue,
            )
            found = made or one(
                connection,
                "SELECT * FROM runs WHERE key = :key OR (kind = :kind AND state IN ('queued', 'running')) "
                "ORDER BY created DESC LIMIT 1",
                key=key,
                kind=kind,
            )
        assert found is not None
        return found, made is not None

    def claim(self, run_id: str, owner: str, *, now: datetime, queues: Sequence[str] = (TRAINING,)) -> Run | None:
        """Take a run of these queues that waits, or whose lease ran out; None when somebody has it, or it has ended."""
        with writing(self._engine) as connection:
            return one(
                connection,
                "UPDATE runs SET state = 'running', owner = :owner, lease_until = :until, token = token + 1,"
                " attempt = attempt + 1, started = CASE WHEN started = '' THEN :now ELSE started END"
                " WHERE id = :id AND attempt < :most AND cancel_requested = 0 AND queue IN (:first, :last)"
                " AND (state = 'queued' OR (state = 'running' AND lease_until < :now)) RETURNING *",
                id=run_id,
                owner=owner,
                until=stamp(now + LEASE),
                now=stamp(now),
                most=ATTEMPTS,
                first=queues[0],
                last=queues[-1],
            )

    def renew(self, run: Run, *, now: datetime) -> Run:
        """Renew the lease; the row says whether cancellation is asked for. Raises Superseded."""
        return self._held(run, "lease_until = :until", until=stamp(now + LEASE))

    def report(self, run: Run, stage: str, *, progress: Mapping[str, Any]) -> Run:
        """Note how far the run is. Raises Superseded."""
        return self._held(run, "stage = :stage, progress = :progress", stage=stage, progress=json.dumps(dict(progress)))

    def took(self, run: Run, stage: str, seconds: float) -> Run:
        """Add what a stage took. Raises Superseded."""
        stages = dict(self.get(run.id).stages)
        stages[stage] = round(stages.get(stage, 0.0) + seconds, 3)
        return self._held(run, "stages = :stages", stages=json.dumps(stages))

    def hold(self, run: Run) -> Run:
        """Raise Superseded unless this token is still the newest: ask right before publishing."""
        return self._held(run, "token = token")

    def finish(
        self, run: Run, state: State, *, now: datetime, result: Mapping[str, Any] | None = None, error: str = ""
    ) -> Run:
        """End a run, once. Raises Superseded."""
        return self._held(
            run,
            "state = :state, result = :result, error = :error, ended = :now",
            state=state,
            result=json.dumps(dict(result or {})),
            error=error,
            now=stamp(now),
        )

    def release(self, run: Run, *, error: str, now: datetime) -> Run:
        """Hand an unfinished run back, to be taken up again; the last attempt ends it instead. Raises Superseded."""
        if run.attempt >= ATTEMPTS:
            return self.finish(run, "failed", now=now, error=f"{error} That was attempt {run.attempt} of {ATTEMPTS}.")
        return self._held(
            run, "state = 'queued', owner = '', error = :error, lease_until = :now", error=error, now=stamp(now)
        )

    def hand_back(self, run: Run, *, now: datetime) -> Run:
        """Put a run back because its worker is asked to stop: that is no failed attempt. Raises Superseded."""
        return self._held(
            run, "state = 'queued', owner = '', attempt = attempt - 1, lease_until = :now", now=stamp(now)
        )

    def leave(self, run: Run, artifact: str) -> Run:
        """Note what whoever takes the run up next goes on from. Raises Superseded."""
        return self._held(run, "artifact = :artifact", artifact=artifact)

    def pass_on(self, run: Run, queue: str, artifact: str, *, now: datetime) -> Run:
        """Hand a run to the workers of a queue, who have all attempts before them. Raises Superseded."""
        return self._held(
            run,
            "state = 'queued', owner = '', attempt = 0, stage = :stage, progress = '{}', queue = :queue,"
            " artifact = :artifact, error = '', lease_until = :now",
            stage=f"for {queue}",
            queue=queue,
            artifact=artifact,
            now=stamp(now),
        )

    def cancel(self, run_id: str, *, now: datetime) -> Run:
        """Ask for a run's end; one that nobody has taken ends at once. Raises UserMistake when it is not active."""
        with writing(self._engine) as connection:
            found = one(
                connection,
                "UPDATE runs SET cancel_requested = 1,"
                " ended = CASE WHEN state = 'queued' THEN :now ELSE ended END,"
                " state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END"
                " WHERE id = :id AND state IN ('queued', 'running') RETURNING *",
                id=run_id,
                now=stamp(now),
            )
        if found is None:
            raise UserMistake(f"Run {run_id!r} is not active.")
        return found

    def due(self, *, now: datetime) -> list[Run]:
        """Runs to ring for: queued ones that nobody heard of, running ones whose worker is gone.

        One that was attempted too often ends here as failed.
        """
        with writing(self._engine) as connection:
            connection.execute(
                sa.text(
                    "UPDATE runs SET state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'failed' END,"
                    " ended = :now, error = CASE WHEN error = '' THEN :error ELSE error END"
                    " WHERE state = 'running' AND lease_until < :now AND (attempt >= :most OR cancel_requested = 1)"
                ),
                {"now": stamp(now), "most": ATTEMPTS, "error": f"The worker was lost {ATTEMPTS} times."},
            )
            rows = connection.execute(
                sa.text(
                    "SELECT * FROM runs WHERE (state = 'running' AND lease_until < :now)"
                    " OR (state = 'queued' AND lease_until < :unheard) ORDER BY created"
                ),
                {"now": stamp(now), "unheard": stamp(now - UNHEARD)},
            ).mappings()
            return [run_of(row) for row in rows]

    def waiting(self, *, now: datetime, queue: str = TRAINING) -> list[Run]:
        """Runs that a worker of a queue could take now, oldest first."""
        with reading(self._engine) as connection:
            rows = connection.execute(
                sa.text(
                    "SELECT * FROM runs WHERE attempt < :most AND cancel_requested = 0 AND queue = :queue"
                    " AND (state = 'queued' OR (state = 'running' AND lease_until < :now)) ORDER BY created"
                ),
                {"now": stamp(now), "most": ATTEMPTS, "queue": queue},
            ).mappings()
            return [run_of(row) for row in rows]

    def get(self, run_id: str) -> Run:
        """One run. Raises UserMistake when there is none."""
        with reading(self._engine) as connection:
            found = one(connection, "SELECT * FROM runs WHERE id = :id", id=run_id)
        if found is None:
            raise UserMistake(f'There is no run {run_id!r}. See "understudy runs".')
        return found

    def states(self) -> dict[str, int]:
        """How many runs there are in each state."""
        with reading(self._engine) as connection:
            rows = connection.execute(sa.text("SELECT state, count(*) AS n FROM runs GROUP BY state")).mappings()
            return {**dict.fromkeys(get_args(State), 0), **{str(row["state"]): int(row["n"]) for row in rows}}

    def recent(self, limit: int = 20) -> list[Run]:
        """The newest runs, newest first."""
        with reading(self._engine) as connection:
            rows = connection.execute(
                sa.text("SELECT * FROM runs ORDER BY created DESC, id LIMIT :limit"), {"limit": limit}
            ).mappings()
            return [run_of(row) for row in rows]

    def _held(self, run: Run, change: str, **values: Any) -> Run:
        with writing(self._engine) as connection:
            found = one(
                connection,
                f"UPDATE runs SET {change} WHERE id = :id AND token = :token AND state = 'running' RETURNING *",
                id=run.id,
                token=run.token,
                **values,
            )
        if found is None:
            raise Superseded(f"Run {run.id!r} was taken over or has ended; attempt {run.attempt} stops.")
        return found


def one(connection: Connection, statement: str, **values: Any) -> Run | None:
    row = connection.execute(sa.text(statement), values).mappings().first()
    return run_of(row) if row else None


def run_of(row: Mapping[Any, Any]) -> Run:
    found = dict(row)
    found.pop("lease_until")
    for name in ("progress", "options", "result", "stages"):
        found[name] = json.loads(found[name])
    return Run(**{**found, "cancel_requested": bool(found["cancel_requested"])})


def document(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    return asdict(run)


def stamp(at: datetime) -> str:
    """UTC as text that sorts by time."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
