"""Scrub: secrets and personal numbers leave the text, the message stays. Pure; fail closed.

What a pattern and, where there is one, a checksum recognise is replaced by its kind, as `[email]`. Then the result is
read again with disguises taken off (full-width and invisible characters, digits spelled out one by one): if anything is
still there, `Refused` is raised and the text must not be used. Not covered: names, addresses, secrets in plain words.
Ordinary numbers, versions, code, commit hashes and links stay.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from infra.errors import Refused
from memory.messages import Exchange

NAMED = (
    r"(?:password|passwd|passphrase|pwd|secret|token|api[ _-]?key|access[ _-]?key|private[ _-]?key|密码|密钥|口令|令牌)"
)
# The fixed beginnings that issuers give their keys so that scanners can find them.
ISSUED = (
    r"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{16,}|\b[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{20,}|\bxox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}|\bhf_[A-Za-z0-9]{20,}|\bnpm_[A-Za-z0-9]{36}"
    r"|\bpypi-[A-Za-z0-9_-]{32,}|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|\bya29\.[A-Za-z0-9_-]{20,}"
)
JWT = r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
DISCORD = r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}"
TELEGRAM = r"(?<!\d)\d{8,10}:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"
WEBHOOK = r"(?<=/webhooks/)\d+/[A-Za-z0-9_-]{20,}|(?<=hooks\.slack\.com/services/)[A-Za-z0-9/]{20,}"


@dataclass(frozen=True)
class Scrubbed:
    """A text without what must not be learned, and how many pieces of which kind were masked."""

    text: str
    masked: dict[str, int]


@dataclass(frozen=True)
class Cleaned:
    """Exchanges that are safe to use, what was masked in them, and how many were left out for which reason."""

    exchanges: list[Exchange]
    masked: dict[str, int]
    excluded: dict[str, int]


@dataclass(frozen=True)
class Pattern:
    """One kind of thing to mask; `sure` decides on a match where the shape alone would catch too much."""

    kind: str
    shape: re.Pattern[str]
    sure: Callable[[re.Match[str]], bool] = lambda match: True
    group: int = 0


def luhn(match: re.Match[str]) -> bool:
    """Whether digits are a payment card's: the issuer's first digits and length, and the Luhn check digit."""
    digits = [int(c) for c in match[0] if c.isdigit()]
    text = "".join(map(str, digits))
    lengths = {"3": (14, 15), "4": (13, 16, 19), "5": (16,), "6": (16, 19), "2": (16,)}.get(text[0], ())
    if len(text) not in lengths or len(set(text)) < 2 or (text[0] == "3" and text[1] not in "04678"):
        return False
    doubled = [d if n % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for n, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def resident(match: re.Match[str]) -> bool:
    """Whether 18 characters are a Chinese resident number: its check character by ISO 7064 MOD 11-2 (GB 11643)."""
    digits = match[0].upper()
    total = sum(int(d) * (1 << (17 - n)) for n, d in enumerate(digits[:17]))
    return "10X98765432"[total % 11] == digits[17]


def iban(match: re.Match[str]) -> bool:
    """Whether letters and digits are a bank account number: ISO 13616, remainder 1 modulo 97."""
    text = match[0].replace(" ", "")
    if not 15 <= len(text) <= 34:
        return False
    moved = text[4:] + text[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def public_link(match: re.Match[str]) -> bool:
    """Whether a match is part of a link and no parameter named like a secret in it: long ids are public there."""
    head = re.split(r"\s", match.string[: match.start()])[-1]
    return "://" in head and not re.search(r"(?:key|token|sig|signature|secret|auth|password|pwd)\w*=$", head.lower())


def secret_hex(match: re.Match[str]) -> bool:
    """Whether long hex is a secret and not the hash of a commit or file, told by its length and the words before."""
    before = match.string[max(0, match.start() - 120) : match.start()].lower()
    if re.search(NAMED + r"\W*(?:is\W*)?$", before):
        return True
    if public_link(match) or re.search(r"sha-?\d|md5|hash|digest|checksum|commit|校验|哈希", before):
        return False
    letters = {c for c in match[0] if c.isalpha()}
    # A git commit is 40 digits, and numbers that are long have no letters; nothing else that is common looks like this.
    return len(match[0]) != 40 and len(letters) >= 3 and any(c.isdigit() for c in match[0])


def secret_base64(match: re.Match[str]) -> bool:
    """Whether a long word is random: all three kinds of characters, changing as often as chance does, high entropy.

    In random base64 about 60 % of neighbours differ in kind, in identifiers and paths fewer than 40 %; random words
    also hold several digits, and a long piece without a separator, which dated file names and paths lack.
    """
    pieces = re.split(r"[/_+-]", match[0].rstrip("="))
    text = "".join(pieces)
    kinds = ["u" if c.isupper() else "l" if c.islower() else "d" for c in text]
    if max(map(len, pieces)) < 11 or kinds.count("d") < 2 or len(set(kinds)) < 3 or public_link(match):
        return False
    changes = sum(a != b for a, b in pairwise(kinds)) / (len(text) - 1)
    shares = [count / len(text) for count in Counter(text).values()]
    return changes >= 0.4 and -sum(p * math.log2(p) for p in shares) >= 3.8


def telling(match: re.Match[str]) -> bool:
    """Whether what follows a word such as `password` is a value: letters and digits, and no code around them."""
    value = match[1]
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def shape(pattern: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | flags)


# In this order: a key may contain what looks like a phone number, not the other way round.
PATTERNS = (
    Pattern("key", shape(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)),
    Pattern("token", shape(f"{JWT}|{DISCORD}|{TELEGRAM}|{WEBHOOK}")),
    Pattern("key", shape(ISSUED)),
    Pattern("secret", shape(r"(?<=://)([^\s/@:]+:[^\s/@]+)(?=@)"), group=1),
    Pattern(
        "email",
        shape(
            r"(?<![A-Za-z0-9._%+-])(?!git@)[A-Za-z0-9._%+-]+[@＠][A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}\b"
        ),
    ),
    Pattern("email", shape(r"[\w.+-]+ ?[\[(]at[\])] ?[\w-]+(?: ?[\[(]dot[\])] ?\w+)+", re.IGNORECASE)),
    Pattern(
        "secret",
        shape(NAMED + r"\s*(?:=|:|：|是|为|is)\s*[\"'`]?([\w!#$%&*+@^~?-]{8,64})(?![\w(\[.])", re.I),
        telling,
        1,
    ),
    Pattern(
        "id",
        shape(
            r"(?<![0-9A-Za-z])[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![0-9A-Za-z])"
        ),
        resident,
    ),
    Pattern("id", shape(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])")),
    Pattern(
        "iban", shape(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"), iban
    ),
    Pattern("card", shape(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-])"), luhn),
    Pattern(
        "phone",
        shape(r"(?<![\w.+])(?:\+|00)[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}(?![\w])"),
        lambda m: 8 <= sum(c.isdigit() for c in m[0]) <= 16,
    ),
    Pattern("phone", shape(r"(?<![\d.])(?:86[ -]?)?1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})(?![\d.]\d|\d)")),
    Pattern("phone", shape(r"(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[ -])\d{3}-\d{4}(?![\w-])")),
    Pattern("phone", shape(r"(?<![\w.-])\(?0\d{2,3}\)?[ -]\d{7,8}(?![\w-])")),
    Pattern("mention", shape(r"<@[!&]?\d{15,21}>")),
    Pattern("secret", shape(r"(?<![0-9A-Za-z])(?:[0-9a-f]{32,}|[0-9A-F]{32,})(?![0-9A-Za-z])"), secret_hex),
    Pattern("secret", shape(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{32,}={0,2}(?![A-Za-z0-9+/_-])"), secret_base64),
)

INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
SPELLED = re.compile(r"(?<!\d)\d(?:[ .·-]\d){9,}(?!\d)", re.ASCII)


def scrub(text: str) -> Scrubbed:
    """`text` with secrets and personal numbers masked by kind. Raises Refused when its own check still finds one."""
    masked: Counter[str] = Counter()
    clean = text
    for pattern in PATTERNS:
        clean = mask(clean, pattern, masked)
    left = sorted({kind for kind, _ in found(undisguised(clean))})
    if left:
        raise Refused(f"A text still holds what looks like {' and '.join(left)} after masking; it is left out.")
    return Scrubbed(clean, dict(masked))


def mask(text: str, pattern: Pattern, masked: Counter[str]) -> str:
    """`text` with every sure match of `pattern` replaced, counted in `masked`."""

    def replaced(match: re.Match[str]) -> str:
        if not pattern.sure(match):
            return match[0]
        masked[pattern.kind] += 1
        start, end = (match.start(pattern.group) - match.start(), match.end(pattern.group) - match.start())
        return f"{match[0][:start]}[{pattern.kind}]{match[0][end:]}"

    return pattern.shape.sub(replaced, text)


def found(text: str) -> Iterator[tuple[str, str]]:
    """What a text holds that must be masked: (kind, match)."""
    for pattern in PATTERNS:
        for match in pattern.shape.finditer(text):
            if pattern.sure(match):
                yield pattern.kind, match[pattern.group]


def undisguised(text: str) -> str:
    """`text` as somebody who looks for hidden numbers reads it; only for looking, never for keeping."""
    plain = INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return SPELLED.sub(lambda match: re.sub(r"\D", "", match[0]), plain)


def clean(exchanges: Iterable[Exchange]) -> Cleaned:
    """All exchanges scrubbed; one that is refused is left out and counted, never used as it was."""
    kept: list[Exchange] = []
    masked: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    for exchange in exchanges:
        try:
            question, answer = scrub(exchange.question), scrub(exchange.answer)
            kept.append(replace(exchange, question=question.text, answer=answer.text, title=scrub(exchange.title).text))
        except Refused:
            excluded["scrub: a secret that could not be masked with certainty"] += 1
            continue
        masked.update(question.masked)
        masked.update(answer.masked)
    return Cleaned(kept, dict(masked), dict(excluded))
