"""The cast: Ada owns the twin, Bob consents, Charlie does not, Mallory attacks. And the hour at which tests happen."""

from datetime import UTC, datetime

from memory.messages import Person

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

ADA = Person("telegram", "1", "Ada", role="creator")
BOB = Person("telegram", "2", "Bob")
CHARLIE = Person("telegram", "3", "Charlie")
MALLORY = Person("telegram", "666", "Mallory")
CREATOR = frozenset({ADA.key})
