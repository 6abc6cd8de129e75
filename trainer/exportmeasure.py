"""What each format has lost: perplexity on held-out text, and how much it still is the creator, beside what is served.

The persona score is the likelihood of the creator's held-out answers and the style score of the answers that it gives
to their questions, both as in the eval card; without the run's held-out rows, which a forgetting may have taken, there
is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from infra.files import read_json, write_json
from infra.voice.chat import Sampling, Turn
from infra.voice.engine import Engine
from infra.voice.score import HELDOUT, Scorer
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from trainer.dataset import Dataset
from trainer.evals import ANSWERING, CONTEXT_TOKENS, STREAMS, Spoken, drawn, own_rows, prompt, speak
from trainer.style import Style, learn


@dataclass(frozen=True)
class Measured:
    """Figures of one system. `nll` in nats per token of the creator's answers; None where nothing was held out."""

    perplexity: float
    nll: float | None = None
    style: float | None = None


@dataclass(frozen=True)
class Measures:
    """What is measured with: the run's dataset, where it is still there, and text that nothing was trained on."""

    built: Dataset | None
    persona: PersonaCard
    weights: Weights
    seed: int
    threads: int = 2
    text: Path = HELDOUT
    answering: Sampling = ANSWERING

    def of(
        self, systems: Mapping[str, tuple[Path, Path | None]], kept: Path, *, say: Callable[[str], None]
    ) -> dict[str, Measured]:
        """Every system's figures; those that `kept` has from an attempt before are not measured again."""
        found = {name: Measured(**each) for name, each in (read_json(kept) if kept.is_file() else {}).items()}
        style = self.style() if self.built and not systems.keys() <= found.keys() else None
        for name, (weights, adapter) in systems.items():
            if name not in found:
                say(f"measuring {name}")
                found[name] = self.one(weights, adapter, style)
                write_json(kept, {each: asdict(figures) for each, figures in found.items()})
        return {name: found[name] for name in systems}

    def style(self) -> Style:
        """As the eval card's: the creator's training answers against what the bare base says."""
        assert self.built is not None
        rows = own_rows(self.built)
        others = self.spoken(self.weights.path, None, drawn(rows))
        return learn([row.answer for row in rows], [each.text for each in others], seed=self.seed)

    def one(self, weights: Path, adapter: Path | None, style: Style | None) -> Measured:
        heldout = self.built.heldout() if self.built else []
        prompts = [prompt(self.persona, each) for each in heldout]
        with Scorer(weights, adapter, threads=self.threads) as scorer:
            perplexity = scorer.perplexity(self.text.read_text(encoding="utf-8"))
            scored = [scorer.answer(turns, each.exchange.answer) for turns, each in zip(prompts, heldout, strict=True)]
        if style is None or not heldout:
            return Measured(perplexity)
        said = self.spoken(weights, adapter, prompts)
        nll = fmean(each.per_token for each in scored)
        return Measured(perplexity, nll, fmean(style.score([each.text or " " for each in said])))

    def spoken(self, weights: Path, adapter: Path | None, prompts: Sequence[Sequence[Turn]]) -> list[Spoken]:
        """Greedy answers to all prompts, through the engine that members hear."""
        engine = Engine(
            weights,
            base="exported",
            base_sha256=self.weights.sha256,
            streams=STREAMS,
            waiting=4096,
            context_tokens=CONTEXT_TOKENS,
            threads=self.threads,
        )
        try:
            if adapter is not None:
                engine.promote("adapter", adapter)
            return speak(engine, prompts, self.answering)
        finally:
            engine.close()
