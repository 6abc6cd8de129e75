"""The profile card: who the twin stands in for, as the model is told. Pure."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class PersonaCard:
    """`about` is one or two sentences in the creator's own words; empty when there are none."""

    name: str
    about: str = ""
    language: str = "en"

    @property
    def version(self) -> str:
        """Short hash of the card: answers and datasets record which card they were rendered with."""
        return hashlib.sha256("\x1f".join((self.name, self.about, self.language)).encode()).hexdigest()[:12]
