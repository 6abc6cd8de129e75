"""The words that go with an exported voice: its model card, AI label, licence note, and Ollama's Modelfile. Pure.

Nobody's words are in them but the persona that every prompt carries; of the dataset there are counts alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment

from memory.persona import PersonaCard
from memory.prompt import system_text
from trainer.exportmeasure import Measured

# What the models of our presets are licensed under, as their own cards say.
BASES: Mapping[str, tuple[str, str]] = {
    "smollm2-135m-instruct": ("apache-2.0", "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct"),
    "qwen2.5-0.5b-instruct": ("apache-2.0", "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen2.5-3b-instruct": (
        "qwen-research, which forbids commercial use",
        "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct",
    ),
    "qwen2.5-7b-instruct": ("apache-2.0", "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct"),
    "qwen2.5-14b-instruct": ("apache-2.0", "https://huggingface.co/Qwen/Qwen2.5-14B-Instruct"),
}
RESERVED = "all rights reserved by {name}"
SHOWN = {
    "nll": "NLL of the creator's answers",
    "style": "style",
    "groundedness": "groundedness",
    "unhealthy": "empty, looping or endless",
}

# Chat templates in Go's language, as Ollama reads them: https://docs.ollama.com/modelfile#template. By what begins a
# turn in the model's own template, with the texts that end one.
OLLAMA: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "<|im_start|>": (
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "<|start_header_id|>": (
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|start_header_id|>", "<|eot_id|>"),
    ),
}


@dataclass(frozen=True)
class Facts:
    """What is known of base and dataset. `gguf` is where the base came from, `served` the format it was kept in."""

    base: str
    gguf: str
    served: str
    base_licence: str
    base_url: str
    licence: str
    rows: Mapping[str, int]
    sources: Mapping[str, int]


def licence_of(base: str, said: str) -> tuple[str, str]:
    """A base's licence and address: as its card says, else as its file says, else unknown."""
    return BASES.get(base, (said or "unknown: ask whoever made it before you pass this on", ""))


def ai_label(name: str) -> str:
    """What has to be said wherever this model speaks."""
    return (
        f"This is an AI speaking in the manner of {name}. It is not {name}, {name} has not written or read what it "
        "says, and it may be wrong."
    )


def described(facts: Facts, persona: PersonaCard, *, version: str) -> dict[str, str | Sequence[str]]:
    """The label and the licence as values of GGUF metadata, where programs show them."""
    return {
        "general.name": f"AI in the manner of {persona.name}",
        "general.description": ai_label(persona.name),
        "general.version": version,
        "general.finetune": "persona",
        "general.license": f"{facts.licence}; base: {facts.base_licence}",
        "general.tags": ["ai-generated", "ai-persona", "not-a-person"],
        "general.languages": [persona.language.split("-")[0]],
        "twin.ai_label": ai_label(persona.name),
        "twin.base": facts.base,
        "twin.adapter_version": version,
    }


def modelfile(file: str, template: str, persona: PersonaCard) -> str:
    """Ollama's Modelfile for one of the merged files; a chat template that is not known here is left to Ollama."""
    written, stops = next((each for start, each in OLLAMA.items() if start in template), ("", ()))
    lines = [
        f"# {ai_label(persona.name)}",
        f"FROM ./{file}",
        f'TEMPLATE """{written}"""' if written else "# No TEMPLATE: Ollama takes the one that the file carries.",
        # Three quotes would end the text.
        f'SYSTEM """{system_text(persona).replace(chr(34) * 3, chr(39) * 3)}"""',
        *(f"PARAMETER stop {json.dumps(stop)}" for stop in stops),
        "PARAMETER temperature 0.3",
        "PARAMETER top_p 0.9",
        "PARAMETER num_ctx 2048",
        "PARAMETER num_predict 256",
        f'LICENSE """See LICENCE.txt. {ai_label(persona.name)}"""',
    ]
    return "\n".join(lines) + "\n"


def licence_note(facts: Facts, persona: PersonaCard) -> str:
    """Under what this may be passed on."""
    where = f" ({facts.base_url})" if facts.base_url else ""
    return (
        f"This voice: {facts.licence}.\n"
        f"Its base, {facts.base}{where}: {facts.base_licence}. What that asks for holds for this too.\n"
        f"It was made from what {persona.name} has written, and sounds like {persona.name}: whoever passes it on needs "
        f"{persona.name}'s consent.\n"
        f"Whoever lets it speak has to say that it is an AI. The label that does is in AI-LABEL.txt.\n"
    )


def card(
    facts: Facts,
    persona: PersonaCard,
    version: str,
    named: Mapping[str, str],
    state: Mapping[str, Any],
    measured: Mapping[str, Measured],
    headline: Mapping[str, Any],
) -> str:
    """README.md: what it is, from what, how good, how to run it."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # noqa: S701  Markdown
    template = (files("trainer") / "exportcard.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        facts=facts,
        name=persona.name,
        language=persona.language.split("-")[0],
        label=ai_label(persona.name),
        version=version,
        named=named,
        state=state,
        figures=figures(named, state, measured),
        worst=max((each["lost"] for each in figures(named, state, measured) if each["file"]), default=0.0),
        headline=headline,
        shown=SHOWN,
    )


def figures(
    named: Mapping[str, str], state: Mapping[str, Any], measured: Mapping[str, Measured]
) -> list[dict[str, Any]]:
    """One line of the table for each system; `lost` is its perplexity above that of the merged model in float16."""
    exact = measured["merged F16"].perplexity
    return [
        {
            "system": system,
            "file": named.get(system, ""),
            "mib": state["files"][system]["bytes"] / 2**20 if system in named else None,
            "bits": state["files"][system]["bits"] if system in named else None,
            "lost": each.perplexity / exact - 1,
            "perplexity": each.perplexity,
            "nll": each.nll,
            "style": each.style,
        }
        for system, each in measured.items()
    ]
