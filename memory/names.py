"""Which names in the graph are of one thing, kept up to date while names and aliases come and go. Pure.

Names belong together where a chain of aliases joins them, or where one is the short form of the other. What follows
from all readings never depends on the order in which they came.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from memory.readings import EntityKind, Mention

Value = TypeVar("Value")

# A thing is of the kind that so many of its mentions speak for; most say nothing.
KIND_SHARE = 0.2


class Names:
    """Every name by its key, how often it was written in which form, and the groups of keys that are one thing."""

    def __init__(self) -> None:
        self._forms: defaultdict[str, Counter[Mention]] = defaultdict(Counter)
        self._joined: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._groups: dict[str, tuple[str, ...]] = {}
        # Which names of several words begin or end with a word, and which of them it is the short form of.
        self._longer: dict[str, set[str]] = {}
        self._short_of: dict[str, str] = {}

    def __contains__(self, key: object) -> bool:
        """Whether anything goes by this key."""
        return key in self._forms

    def count(
        self, mentions: Mapping[str, Mention], aliases: Iterable[tuple[str, str]], *, by: Literal[1, -1]
    ) -> set[str]:
        """Count what one source says in, or out again; returns the ids that are another group's now than before."""
        touched: set[str] = set()
        for key, mention in mentions.items():
            tally(self._forms, key, mention, by)
            self._note_long(key)
        for one, other in aliases:
            touched |= self._join(one, other, by)
        for part in {part for key in mentions for part in ends(key)}:
            touched |= self._shorten(part)
        return self._regroup(touched)

    def id_of(self, key: str) -> str:
        """The id of the thing that goes by this key."""
        return self.keys(key)[0]

    def keys(self, key: str) -> tuple[str, ...]:
        """All keys of the thing that goes by this one, in alphabetical order."""
        return self._groups.get(key, (key,))

    def forms(self, key: str) -> list[str]:
        """How the thing is written under all its names, the most frequent first."""
        counts = Counter[str]()
        for mention, count in self._mentions(key).items():
            counts[mention.name] += count
        return sorted(counts, key=lambda name: (-counts[name], name))

    def kind(self, key: str) -> EntityKind:
        """What the thing seems to be."""
        counts, mentions = Counter[EntityKind](), self._mentions(key)
        for mention, count in mentions.items():
            counts[mention.kind] += count
        telling = [kind for kind in counts if kind != "concept" and counts[kind] >= KIND_SHARE * mentions.total()]
        return min(telling, key=lambda kind: (-counts[kind], kind), default="concept")

    def _mentions(self, key: str) -> Counter[Mention]:
        return sum((self._forms.get(each, Counter()) for each in self.keys(key)), Counter[Mention]())

    def _is_name(self, key: str) -> bool:
        """Whether a key is mostly written like somebody's name."""
        forms = self._forms.get(key, Counter())
        usual = min(forms, key=lambda form: (-forms[form], form.name), default=None)
        return usual is not None and is_name(usual.name)

    def _note_long(self, key: str) -> None:
        if " " not in key:
            return
        for part in ends(key):
            longer = self._longer.setdefault(part, set())
            (longer.add if self._is_name(key) else longer.discard)(key)
            if not longer:
                del self._longer[part]

    def _shorten(self, part: str) -> set[str]:
        """ "Anke" is "Anke Voss" as long as no other name begins or ends with it; returns the keys this changes."""
        longer = self._longer.get(part, set())
        (now,) = longer if len(longer) == 1 and self._is_name(part) else {""}
        before = self._short_of.pop(part, "")
        if now:
            self._short_of[part] = now
        if now == before:
            return set()
        left = self._join(part, before, -1) if before else set()
        return left | (self._join(part, now, 1) if now else set())

    def _join(self, one: str, other: str, by: Literal[1, -1]) -> set[str]:
        tally(self._joined, one, other, by)
        tally(self._joined, other, one, by)
        return {one, other}

    def _regroup(self, touched: set[str]) -> set[str]:
        """Find the groups of these keys again; returns the old ids of those that have another now."""
        left, moved = {key for each in touched for key in self.keys(each)}, set[str]()
        while left:
            group = self._reached(left.pop())
            left.difference_update(group)
            for key in group:
                before = self.id_of(key)
                moved |= {before} if before != group[0] else set()
                self._groups[key] = group
                if len(group) == 1:
                    del self._groups[key]
        return moved

    def _reached(self, key: str) -> tuple[str, ...]:
        """Every key that a chain of joins leads to."""
        found, ahead = {key}, [key]
        while ahead:
            new = self._joined.get(ahead.pop(), Counter()).keys() - found
            found |= new
            ahead += new
        return tuple(sorted(found))


def ends(key: str) -> set[str]:
    """The first and the last word of a name."""
    words = key.split()
    return {words[0], words[-1]} if words else set()


def is_name(name: str) -> bool:
    """Whether each word of a name begins with a capital and goes on small."""
    return all(word[0].isupper() and word[1:].islower() for word in name.split())


def tally(index: defaultdict[str, Counter[Value]], key: str, value: Value, by: Literal[1, -1]) -> None:
    """Count one value in or out, and drop what is at nothing."""
    counts = index[key]
    counts[value] += by
    if counts[value] <= 0:
        del counts[value]
    if not counts:
        del index[key]
