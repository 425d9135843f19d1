"""Settings of `generate` and `serve`, documented under the field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from forgetfilter.errors import ConfigError
from forgetfilter.guide.guidance import FORMS, LARGEST_SCALE, Guidance
from forgetfilter.models.quantization import Quantization
from forgetfilter.settings import Between, Count, OneOf, Seed, Share, check_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideSettings:
    """What `generate` and `serve` share. A value that is not allowed raises ConfigError."""

    model: str = "nano"
    """nano (embedded), smollm2, a local folder, a .gguf file, or a hub id."""
    guidance_scale: Annotated[float, Between(0, LARGEST_SCALE)] = 1.0
    """1 is none, 3 pushes hard, 0 is the negative prompt."""
    form: Annotated[str, OneOf("guidance form", FORMS)] = "probability"
    """How the two distributions are combined: probability or log."""
    min_p: Share = 0.1
    """Tokens less likely than this times the best are out where guidance > 1; 0: off."""
    negative: str | None = None
    """System message to be guided away from, put before a row's own; the paper's where not given."""
    system: str | None = None
    """System message, put before a row's own; the paper's where guided and not given."""
    adapter: str | None = None
    """Folder of a low-rank adapter to put on the model."""
    guide_by: Literal["prompt", "adapter"] = "prompt"
    """Guide away from a prompt, or from the model without adapter."""
    template: str = "auto"
    """How a chat becomes text: auto, chat, paper or plain."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto, float32, bfloat16, float16. Below float32 an answer depends on the rows beside it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    quantization: Quantization = "none"
    """Hold the model in 4 bits (nf4) or 8 (int8)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.guide_by == "adapter" and self.adapter is None:
            raise ConfigError("--guide-by adapter: name the adapter with --adapter")

    @property
    def guidance(self) -> Guidance:
        return Guidance(self.guidance_scale, self.form, self.min_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings(GuideSettings):
    """Everything `generate` can be told."""

    prompt: str | None = None
    """One prompt; without it, a prompt a line is read."""
    input: str | None = None
    """A file of rows: each is asked without its answer."""
    output: str | None = None
    """JSONL file for their answers."""
    max_new_tokens: Count = 256
    """Most tokens of an answer."""
    temperature: Annotated[float, Between(0)] = 0.0
    """0: the most likely token, always; above: draw."""
    top_p: Annotated[float, Between(above=0, high=1)] = 1.0
    """Draw among the likeliest tokens up to this share."""
    num_return_sequences: Count = 1
    """Answers to each prompt."""
    num_beams: Count = 1
    """Above 1: look for the likeliest whole answer."""
    seed: Seed = 0
    """Seed of what is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings(GuideSettings):
    """Everything `serve` can be told."""

    host: str = "127.0.0.1"
    """Interface to bind; by default only this machine can connect."""
    port: Annotated[int, Between(0, 65535)] = 8000
    """Port to listen on; 0: any free one."""
    keys: str | None = None
    """YAML of bearer tokens, each with its guidance; else FORGETFILTER_TOKEN, or a new one."""
    max_new_tokens: Count = 512
    """Most tokens of an answer."""
    max_request_bytes: Count = 1 << 20
    """Largest request."""
    max_seconds: Annotated[float, Between(0)] = 300.0
    """Longest time for a request."""
    batch_tokens: Count = 65536
    """Tokens of all open answers together."""
    max_waiting: Count = 256
    """Prompts that may wait; more are told to come back (429)."""
    drain_seconds: Annotated[float, Between(1)] = 30.0
    """Time for open answers when it is stopped."""
    strict: bool = False
    """Refuse request fields that would be ignored."""
    log_requests: bool = True
    """A line on stderr for each request."""
