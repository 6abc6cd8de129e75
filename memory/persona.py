"""The profile card: who the twin stands in for, as the model is told. Pure."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class PersonaCard:
    """`about` is one or two sentences in the creator's own words, `profile` what `memory/profile.py` adds."""

    name: str
    about: str = ""
    language: str = "en"
    profile: str = ""

    @property
    def version(self) -> str:
        """Short hash of the card: answers and datasets record which card they were rendered with."""
        # A card without a profile has the version that it had before there were profiles.
        parts = (self.name, self.about, self.language, *([self.profile] if self.profile else []))
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]
