"""The thinking section of an answer, `<think>...</think>`, kept out of what people read while the answer streams.

Pure. A piece is shown only once it cannot be the beginning of a tag, so that no half of one is ever seen; what was held
back and is no tag comes with the next piece, and half a tag at the very end is dropped. Thinking that never ends hides
all that follows it. A model whose template opens the section in the prompt says only the closing tag: what came before
it was shown already, and the tag is cut.
"""

from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"


@dataclass
class Shown:
    """What a member sees of one answer, piece by piece; with `thinking`, its text too, in a paragraph of its own."""

    thinking: bool = False
    _held: str = ""
    _inside: bool = False
    # Whether blanks are dropped: those after a tag stand for nothing.
    _fresh: bool = False

    def feed(self, text: str) -> str:
        """What may be shown now that `text` has come."""
        self._held += text
        shown = ""
        while (place := self._held.find("<")) >= 0:
            shown += self._plain(self._held[:place])
            self._held = self._held[place:]
            tag = next((tag for tag in (OPEN, CLOSE) if self._held[: len(tag)].lower() == tag), None)
            if tag:
                shown += self._turn(tag)
            elif begins_a_tag(self._held):
                return shown
            else:
                shown += self._plain("<")
                self._held = self._held[1:]
        shown += self._plain(self._held)
        self._held = ""
        return shown

    def _turn(self, tag: str) -> str:
        """Begin or end the thinking."""
        self._held = self._held[len(tag) :]
        ended = self._inside and tag == CLOSE
        self._inside, self._fresh = tag == OPEN, True
        return "\n\n" if ended and self.thinking else ""

    def _plain(self, text: str) -> str:
        if self._inside and not self.thinking:
            return ""
        kept = text.lstrip() if self._fresh else text
        self._fresh = self._fresh and not kept
        return kept


def begins_a_tag(text: str) -> bool:
    """Whether `text` could become a tag with what comes next."""
    return any(len(text) < len(tag) and tag.startswith(text.lower()) for tag in (OPEN, CLOSE))


def visible(text: str, *, thinking: bool = False) -> str:
    """A whole answer as members see it."""
    return Shown(thinking).feed(text).strip()
