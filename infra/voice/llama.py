"""llama.cpp, as much of it as a voice needs: the only module that imports `llama_cpp`.

Thin owners of C objects with the checks that the C side leaves to the caller: NULL pointers are falsy and not None, a
batch that does not fit is an error code, an adapter must outlive every context that uses it. None of these classes is
safe to share between threads without care; `engine.py` says which thread may touch what.
"""

import ctypes
import os
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from infra.errors import ServiceTrouble, UserMistake
from infra.settings import share_cores
from infra.voice.chat import Sampling, Turn
from infra.voice.gguf_check import check_adapter, check_base
from infra.voice.tuning import DEFAULT, Tuning

Format = Literal["Q4_0", "Q4_K_M", "Q5_K_M", "Q8_0", "F16", "BF16"]

# Sorting 50k candidates for every token costs more than the model's own work on a small base; nothing below the 256th
# is ever drawn at a top_p that makes sense.
TOP_K = 256
PENALTY_WINDOW = 64
MOST_SCHEMA, MOST_REPEATS = 1 << 16, 1000
# llama.cpp's `llama_token_data`.
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

# What begins control texts that some templates write and their vocabularies know as plain words.
WRITTEN = ("<|", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


@cache
def lib() -> Any:
    """The bindings, loaded once, with llama.cpp's own log switched off: it would mix with ours."""
    share_cores()
    import llama_cpp.llama_cpp as bindings

    lib.log = bindings.llama_log_callback(lambda level, text, data: None)  # type: ignore[attr-defined]
    bindings.llama_log_set(lib.log, None)  # type: ignore[attr-defined]
    bindings.llama_backend_init()
    return bindings


def gpu_layers(wanted: int) -> int:
    """How many layers go to a GPU where so many may, -1 meaning all: none where llama.cpp was built without one."""
    return wanted if lib().llama_supports_gpu_offload() else 0


class Model:
    """A base model's weights, its tokenizer and its chat template."""

    def __init__(self, path: Path, *, gpu_layers: int = 0) -> None:
        """Load a GGUF file, as many layers of it as said to a GPU, -1 all.

        Raises ServiceTrouble when it is missing or broken, or llama.cpp cannot.
        """
        self.header = check_base(path)
        self._lib = lib()
        self.path = path
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        self.pointer = self._lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer:
            raise ServiceTrouble(f"llama.cpp cannot load {str(path)!r} as a model.", permanent=True)
        self._vocab = self._lib.llama_model_get_vocab(self.pointer)
        self.vocabulary: int = self._lib.llama_vocab_n_tokens(self._vocab)
        self.parameters: int = self._lib.llama_model_n_params(self.pointer)
        # Instruct models name the end of a turn as their end of text; some carry a wrong `eot` besides.
        self.end_of_turn: int = self._lib.llama_vocab_eos(self._vocab)
        # A state that runs on cannot be cut back to an earlier token, as a wrong guess must be.
        self.can_cut = not (
            self._lib.llama_model_is_recurrent(self.pointer) or self._lib.llama_model_is_hybrid(self.pointer)
        )
        template = self.metadata("tokenizer.chat_template")
        if not template:
            raise UserMistake(f"{str(path)!r} carries no chat template; choose an instruct model.")
        self._control = control_texts(control_tokens(self._lib, self._vocab), template)
        try:
            self._template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        except TemplateError as error:
            raise UserMistake(f"The chat template of {str(path)!r} cannot be read: {error}.") from error

    def metadata(self, key: str) -> str:
        """A text value of the GGUF's metadata; empty when there is none."""
        return read_text(
            lambda buffer, size: self._lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size)
        )

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The turns as the model's own chat template writes them, ready for the assistant to speak.

        Raises UserMistake for turns that the template refuses, such as two of one speaker in a row.
        """
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, bos_token="", eos_token="")
        except TemplateError as error:
            raise UserMistake(f"The model's chat template refuses these turns: {error}.") from error

    def tokens(self, text: str, *, special: Literal["parse", "plain"] = "parse") -> list[int]:
        """Token ids of `text`. "parse" reads control tokens in it, as templates write them."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        buffer = (self._lib.llama_token * room)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), buffer, room, False, special == "parse")
        assert count >= 0, f"{room} tokens were not enough for {len(raw)} bytes"
        return list(buffer[:count])

    def turn_tokens(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a whole prompt. Control tokens in people's words stay words: only the template's are read."""
        return self.tokens(self.prompt([Turn(t.role, disarm(t.content, self._control)) for t in turns]))

    def piece(self, token: int) -> bytes:
        """The bytes of one token, which may be part of a character."""
        buffer = ctypes.create_string_buffer(64)
        size = self._lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = self._lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:size]

    def ends(self, token: int) -> bool:
        """Whether this token ends a turn."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def keeping_to(self, schema: str) -> Any:
        """A sampler that allows only JSON of a schema; whoever asks for it frees it. Raises UserMistake for none."""
        found = self._lib.llama_sampler_init_grammar(self._vocab, grammar_of(schema).encode(), b"root")
        if not found:
            raise UserMistake("This JSON schema cannot be kept to: llama.cpp cannot read its grammar.")
        return found

    def check_schema(self, schema: str) -> None:
        """Raises UserMistake for what is no JSON schema."""
        self._lib.llama_sampler_free(self.keeping_to(schema))

    def free(self) -> None:
        if self.pointer:
            self._lib.llama_model_free(self.pointer)
            self.pointer = None


def control_tokens(bindings: Any, vocab: Any) -> dict[str, bool]:
    """The texts that "parse" reads as one token; true where only "parse" does, and no other text ever."""
    only, also = (
        bindings.LLAMA_TOKEN_ATTR_CONTROL | bindings.LLAMA_TOKEN_ATTR_UNKNOWN,
        bindings.LLAMA_TOKEN_ATTR_USER_DEFINED,
    )
    attributes = ((n, bindings.llama_vocab_get_attr(vocab, n)) for n in range(bindings.llama_vocab_n_tokens(vocab)))
    return {
        bindings.llama_vocab_get_text(vocab, n).decode("utf-8", "replace"): bool(found & only)
        for n, found in attributes
        if found & (only | also)
    }


def control_texts(tokens: dict[str, bool], template: str) -> re.Pattern[str]:
    """Where in people's words a control text begins: one of the vocabulary's, or what templates write as such."""
    # Tokens that a template does not write, such as runs of blanks or HTML tags, say nothing but themselves.
    texts = {text for text, control in tokens.items() if text.strip() and (control or text in template)}
    ordered = sorted({*texts, *WRITTEN}, key=len, reverse=True)
    return re.compile(f"(?=(?:{'|'.join(map(re.escape, ordered))}))(.)", re.DOTALL)


def disarm(text: str, control: re.Pattern[str]) -> str:
    """Words in which no control token of a chat template can be read: a member cannot speak as the system."""
    return control.sub("\\1\u200b", text)


class Adapter:
    """A LoRA adapter on a model. Free it only when no context uses it."""

    def __init__(self, model: Model, path: Path, *, base_sha256: str = "") -> None:
        """Load a GGUF adapter. Raises ServiceTrouble when it is missing, broken or made for another model.

        With `base_sha256`, it must name that base as the one it was trained on.
        """
        check_adapter(path, model.header, base_name=model.path.name, base_sha256=base_sha256)
        self._lib = lib()
        self.size = path.stat().st_size
        # A failed load is a NULL pointer object, which is not None: only its truth tells.
        self.pointer = self._lib.llama_adapter_lora_init(model.pointer, os.fsencode(path))
        if not self.pointer:
            raise ServiceTrouble(f"{str(path)!r} is no adapter for {model.path.name!r}.", permanent=True)

    def metadata(self, key: str) -> str:
        """A text value of the adapter's metadata; empty when there is none."""
        return read_text(
            lambda buffer, size: self._lib.llama_adapter_meta_val_str(self.pointer, key.encode(), buffer, size)
        )

    def free(self) -> None:
        if self.pointer:
            self._lib.llama_adapter_lora_free(self.pointer)
            self.pointer = None


class Context:
    """The running state of a model: the KV memory of up to `sequences` sequences, and at most one adapter."""

    def __init__(
        self,
        model: Model,
        *,
        tokens: int,
        sequences: int,
        batch: int,
        threads: int,
        adapter: Adapter | None = None,
        tuning: Tuning = DEFAULT,
    ) -> None:
        """Allocate for up to `tokens` tokens in each sequence. Raises ServiceTrouble when memory does not suffice."""
        self._lib = lib()
        self.model = model
        params = self._lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = tokens * sequences, batch, min(batch, tuning.ubatch)
        params.n_seq_max = sequences
        # One stretch of memory for each sequence: in a unified one, every token attends over the cells of all the
        # others too, masked but computed, which measured twice the time of a prompt at eight streams.
        params.kv_unified = False
        params.flash_attn_type = int(tuning.flash)
        params.type_k = params.type_v = {"f16": self._lib.GGML_TYPE_F16, "q8_0": self._lib.GGML_TYPE_Q8_0}[tuning.kv]
        params.n_threads, params.n_threads_batch = tuning.threads or threads, tuning.batch_threads or threads
        self.pointer = self._lib.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise ServiceTrouble(f"llama.cpp cannot make a context of {tokens * sequences} tokens: not enough memory.")
        self._memory = self._lib.llama_get_memory(self.pointer)
        self._batch = self._lib.llama_batch_init(batch, 0, 1)
        self._capacity = batch
        if adapter is not None:
            self._use(adapter)

    def _use(self, adapter: Adapter) -> None:
        adapters = (self._lib.llama_adapter_lora_p_ctypes * 1)(adapter.pointer)
        scales = (ctypes.c_float * 1)(1.0)
        if self._lib.llama_set_adapters_lora(self.pointer, adapters, 1, scales) != 0:
            self.free()
            raise ServiceTrouble("llama.cpp refused the adapter.", permanent=True)

    def decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Compute rows of (token, position, sequence, wants logits). Raises ServiceTrouble when they do not fit."""
        assert len(rows) <= self._capacity, f"{len(rows)} rows in a batch of {self._capacity}"
        batch = self._batch
        batch.n_tokens = len(rows)
        for row, (token, position, sequence, logits) in enumerate(rows):
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = logits
        status = self._lib.llama_decode(self.pointer, batch)
        if status != 0:
            raise ServiceTrouble(f"llama.cpp could not compute a batch of {len(rows)} tokens (status {status}).")

    def logits(self, row: int) -> np.ndarray:
        """The logits that row `row` of the last batch asked for: float32, one for each token of the vocabulary."""
        found = self._lib.llama_get_logits_ith(self.pointer, row)
        return np.ctypeslib.as_array(found, shape=(self.model.vocabulary,)).copy()

    def saved(self, sequence: int) -> np.ndarray:
        """What is computed of a sequence, as bytes for `restore`: a copy of its own, the size of its cells."""
        size = self._lib.llama_state_seq_get_size(self.pointer, sequence)
        found = np.empty(size, dtype=np.uint8)
        written = self._lib.llama_state_seq_get_data(self.pointer, bytes_at(found), size, sequence)
        assert written == size, f"{written} of {size} bytes were saved"
        return found

    def restore(self, sequence: int, saved: np.ndarray) -> None:
        """Let a sequence go on from what `saved` of this context holds. Raises ServiceTrouble when it has no room."""
        # `llama_memory_seq_cp` between sequences copies all the memory that a sequence may ever use, not what it uses.
        if not self._lib.llama_state_seq_set_data(self.pointer, bytes_at(saved), saved.size, sequence):
            raise ServiceTrouble("llama.cpp could not copy what is computed already.")

    def forget(self, sequence: int, *, after: int = 0) -> bool:
        """Free a sequence's cells from position `after` on; false where this model's memory cannot be cut there."""
        return bool(self._lib.llama_memory_seq_rm(self._memory, sequence, after, -1))

    def free(self) -> None:
        if self.pointer:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self.pointer)
            self.pointer = None


class Sampler:
    """llama.cpp's own samplers in its usual order, for one request."""

    def __init__(self, model: Model, sampling: Sampling, seed: int) -> None:
        self._lib = lib()
        self._model = model
        self._grammar = model.keeping_to(sampling.schema) if sampling.schema else None
        self._chain = self._lib.llama_sampler_chain_init(self._lib.llama_sampler_chain_default_params())
        add = self._lib.llama_sampler_chain_add
        if sampling.repeat_penalty != 1.0:
            penalties = self._lib.llama_sampler_init_penalties
            add(self._chain, penalties(0, PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0))
        if sampling.temperature == 0:
            add(self._chain, self._lib.llama_sampler_init_greedy())
            return
        add(self._chain, self._lib.llama_sampler_init_top_k(TOP_K))
        add(self._chain, self._lib.llama_sampler_init_top_p(sampling.top_p, 1))
        add(self._chain, self._lib.llama_sampler_init_temp(sampling.temperature))
        add(self._chain, self._lib.llama_sampler_init_dist(seed & 0xFFFFFFFF))

    def sample(self, context: Context, row: int) -> int:
        """The next token after row `row` of the last batch."""
        if self._grammar is None:
            return int(self._lib.llama_sampler_sample(self._chain, context.pointer, row))
        return self._within_grammar(context.logits(row))

    def _within_grammar(self, logits: np.ndarray) -> int:
        """The next token that the grammar allows; the end of turn where it allows none."""
        candidates = np.empty(len(logits), dtype=CANDIDATE)
        candidates["id"], candidates["logit"], candidates["p"] = np.arange(len(logits)), logits, 0
        data = candidates.ctypes.data_as(ctypes.POINTER(self._lib.llama_token_data))
        array = self._lib.llama_token_data_array(data, len(logits), -1, False)
        self._lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        # A schema can lead where nothing may follow. To accept a token there ends the process.
        if not np.isfinite(candidates["logit"]).any():
            return self._model.end_of_turn
        self._lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        self._lib.llama_sampler_accept(self._grammar, token)
        self._lib.llama_sampler_accept(self._chain, token)
        return token

    def free(self) -> None:
        for sampler in (self._chain, self._grammar):
            if sampler:
                self._lib.llama_sampler_free(sampler)
        self._chain = self._grammar = None


def check_schema_size(schema: str) -> None:
    """Raise UserMistake for a schema whose grammar would fill the memory, or take minutes for each token."""
    if len(schema) > MOST_SCHEMA:
        raise UserMistake(f"The JSON schema has {len(schema)} characters, at most {MOST_SCHEMA} are read.")
    if "){" in schema:
        raise UserMistake("A pattern of the JSON schema repeats a group a number of times; repeat single characters.")
    # Repetitions are written out in a grammar, also those in a pattern's braces.
    numbers = re.findall(r'"(?:min|max)(?:Length|Items)"\s*:\s*(\d+)|\{(\d+)\s*[,}]|,\s*(\d+)\}', schema)
    if any(int(found[:9]) > MOST_REPEATS for match in numbers for found in match if found):
        raise UserMistake(f"The JSON schema asks for more than {MOST_REPEATS} repetitions.")


@lru_cache(maxsize=16)
def grammar_of(schema: str) -> str:
    """The GBNF grammar of the JSON documents that fit a JSON schema. Raises UserMistake for what cannot be one."""
    check_schema_size(schema)
    lib()
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(schema))
    except (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserMistake(f"This JSON schema cannot be kept to: {error}.") from error


def quantise(source: Path, target: Path, form: Format, *, threads: int) -> None:
    """Write `source` again in another format. Raises ServiceTrouble when llama.cpp cannot."""
    bindings = lib()
    params = bindings.llama_model_quantize_default_params()
    params.ftype = getattr(bindings, f"LLAMA_FTYPE_MOSTLY_{form}")
    params.nthread = threads
    # The packaged base is quantised already; `weights.py` measures what doing it again costs.
    params.allow_requantize = True
    if bindings.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)) != 0:
        raise ServiceTrouble(f"llama.cpp could not write {str(source)!r} as {form}: is the disk full?")


def bytes_at(buffer: np.ndarray) -> Any:
    """An array's memory as C's pointer to bytes."""
    return buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def read_text(read: Any) -> str:
    """A text that C writes into a buffer and whose length it returns, negative when there is none."""
    buffer = ctypes.create_string_buffer(1 << 16)
    size = read(buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if size >= 0 else ""
