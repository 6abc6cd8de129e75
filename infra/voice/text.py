"""The bytes of tokens as the text that may be shown: whole characters, and nothing from a stop text on."""

import codecs


class TextOut:
    """Tokens in, whole characters out; ends before a stop text, also one that comes in pieces."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = [text for text in stop if text]
        self._held = ""
        self.stopped = False

    def push(self, raw: bytes) -> str:
        """What may be shown after these bytes."""
        self._held += self._decoder.decode(raw)
        for text in self._stop:
            at = self._held.find(text)
            if at >= 0:
                self.stopped = True
                self._held = self._held[:at]
        return self._release(0 if self.stopped else self._begun())

    def rest(self) -> str:
        """What was held back, at the end."""
        if not self.stopped:
            self._held += self._decoder.decode(b"", final=True)
        return self._release(0)

    def _begun(self) -> int:
        """How many of the last characters may be the beginning of a stop text."""
        longest = 0
        for text in self._stop:
            for size in range(min(len(text) - 1, len(self._held)), longest, -1):
                if self._held.endswith(text[:size]):
                    longest = size
                    break
        return longest

    def _release(self, keep: int) -> str:
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown
