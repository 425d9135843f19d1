"""The thread that writes all answers side by side: a new job joins the others at the next token."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError
from forgetfilter.guide.branches import Branches
from forgetfilter.guide.decoding import Draft, Kept, Request, write, writing
from forgetfilter.guide.generation import stop_ids
from forgetfilter.guide.likelihood import likelihood
from forgetfilter.guide.serving.fields import Refused
from forgetfilter.guide.tools import begun
from forgetfilter.models.architecture import recurrent, unwrapped
from forgetfilter.models.library import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_WAITING = 256  # requests that have not begun; more are told to come back
RETRY_AFTER = 2  # seconds


class Bell:
    """Rings in the server's loop when the engine's thread has written more."""

    def __init__(self) -> None:
        self._loop, self._rung = asyncio.get_running_loop(), asyncio.Event()

    def ring(self) -> bool:
        """False: the loop is closed, so nobody waits any more."""
        try:
            self._loop.call_soon_threadsafe(self._rung.set)
        except RuntimeError:
            return False
        return True

    async def rung(self) -> None:
        await self._rung.wait()
        self._rung.clear()


class Choice(Draft):
    """A draft and its text so far. Written by the engine's thread alone, read by the server's."""

    def __init__(self, job: Job, sample: int, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(job.prompt, sample)
        self.job = job
        self.ready = ""  # text that stays as it is
        self.ended: str | None = None  # set once `ready` is whole
        self._tokenizer = tokenizer
        self._stream: Any = None
        self._text = ""
        self._read = 0

    def update(self) -> None:
        """Take the tokens that have come since into the text; a stop sequence ends it."""
        for token in self.ids[self._read :]:
            self._text += self._decoded(token)
        self._read = len(self.ids)
        if self.finish:  # what the stream held back, such as half a character
            whole = str(self._tokenizer.decode(self.ids, skip_special_tokens=True))
            self._text = whole if whole.startswith(self._text) else self._text
        found = [at for stop in self.job.stops if (at := self._text.find(stop)) >= 0]
        if found:
            self._text, self.finish = self._text[: min(found)], "stop"
        held = 0 if self.finish else max((begun(self._text, stop) for stop in self.job.stops), default=0)
        self.ready = self._text[: len(self._text) - held]
        self.ended = self.finish

    def _decoded(self, token: int) -> str:
        """What the text grows by; nothing in the middle of a character."""
        from tokenizers.decoders import DecodeStream

        for _ in range(2):
            self._stream = self._stream or DecodeStream(skip_special_tokens=True)
            try:
                return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
            except (
                Exception
            ):  # bytes that turn out to be no character change the text before them: begin anew here
                self._stream = None
        return ""


class Job:
    """One prompt on its way: its choices, and the bell that rings when they have grown.

    `echo`: so many tokens at the prompt's end whose likelihood is wanted, in `read` once it is known.
    """

    def __init__(
        self,
        prompt: Request,
        count: int,
        stops: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        bell: Bell | None = None,
        echo: int | None = None,
    ) -> None:
        self.prompt, self.stops, self.echo = prompt, stops, echo
        self.read: list[Kept | None] = []
        self.choices = [Choice(self, sample, tokenizer) for sample in range(count)]
        longest = max(len(prompt.prompt), len(prompt.negative or ()))
        self.room = count * (2 - prompt.guidance.plain) * (longest + prompt.limit)  # tokens of cache, at most
        self.cancelled = False
        self.error: Exception | None = None
        self._bell = bell or Bell()

    @property
    def over(self) -> bool:
        return self.error is not None or all(choice.ended for choice in self.choices)

    def ring(self) -> None:
        if not self._bell.ring():
            self.cancelled = True


class Engine:
    """Answers jobs side by side in a thread of its own. `batch_tokens` bounds the caches of all open jobs together;
    a job that alone is larger is answered alone. `most_waiting` jobs may wait; more are refused."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int = 65536,
        most_waiting: int = MOST_WAITING,
        adapters: tuple[str, str] | None = None,
    ) -> None:
        if recurrent(model):
            raise ModelError(
                f"a {unwrapped(model).config.model_type} model keeps a recurrent state, which cannot skip a batch's "
                "padding; serve a model with attention only"
            )
        self.model, self.tokenizer, self.adapters = model, tokenizer, adapters
        self._batch_tokens, self._most_waiting = batch_tokens, most_waiting
        self._stop_ids = frozenset(stop_ids(model, tokenizer))
        self._waiting: deque[Job] = deque()
        self._open: list[Choice] = []  # being written
        self._joining: list[Job] = []  # taken from the queue; their prompts are being read
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.draining = False  # the server is about to go: what is open is finished, nothing new is taken

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Finish what is open and waiting, then end the thread."""
        with self._changed:
            self._closing = self.draining = True
            self._changed.notify()
        self._thread.join()

    def submit(self, *jobs: Job) -> None:
        """Queue all of them, or, where they would be too many, none: Refused says when to come back."""
        with self._changed:
            if self.draining or self._closing:
                raise Refused(
                    503, "the server is about to stop", code="shutting_down", retry_after=RETRY_AFTER
                )
            if self._waiting and len(self._waiting) + len(jobs) > self._most_waiting:
                raise Refused(
                    429, "too many requests are waiting; try again later", code="rate_limit_exceeded",
                    retry_after=RETRY_AFTER,
                )  # fmt: skip
            self._waiting.extend(jobs)
            self._changed.notify()

    @property
    def idle(self) -> bool:
        """Nothing is open, nothing waits."""
        return self.load == (0, 0)

    @property
    def load(self) -> tuple[int, int]:
        """Answers being written, those whose prompt is being read among them, and prompts that wait."""
        joining = [choice for job in self._joining for choice in job.choices]
        return len({*self._open, *joining}), len(self._waiting)

    def _run(self) -> None:
        import torch

        branches, tokens = Branches(self.model, adapters=self.adapters), list[int]()
        with writing(self.model), torch.inference_mode():
            while True:
                new = self._admit(self._open)
                if not new and not self._open:
                    return
                try:
                    self._open, tokens = self._step(branches, self._open, tokens, new)
                except Exception as error:  # out of memory, say: those in the batch fail, the server goes on
                    _fail([*{choice.job: None for choice in self._open}, *new], error)
                    branches, self._open, tokens = Branches(self.model, adapters=self.adapters), [], []
                self._joining = []

    def _admit(self, open_: Sequence[Choice]) -> list[Job]:
        """Jobs that join now, first come first served; waits while there is nothing to do. None and nothing open:
        it is over."""
        used = sum({c.job: c.job.room for c in open_}.values())
        new = self._joining = []
        with self._changed:
            while True:
                while self._waiting:
                    first = self._waiting[0]
                    if not first.cancelled:
                        if used + first.room > self._batch_tokens and (open_ or new):
                            break
                        used += first.room
                        new.append(first)
                    self._waiting.popleft()
                if new or open_ or self._closing:
                    return new
                self._changed.wait()

    def _step(
        self, branches: Branches, open_: list[Choice], tokens: list[int], new: Sequence[Job]
    ) -> tuple[list[Choice], list[int]]:
        """The open choices read their last token, new jobs join, and each gets one token more."""
        stay = [i for i, c in enumerate(open_) if not c.finish and not c.job.cancelled]
        if len(stay) < len(open_):
            branches.select(stay)
            open_, tokens = [open_[i] for i in stay], [tokens[i] for i in stay]
        if open_:
            branches.advance(tokens)
        new = self._joined(branches, new)
        if new:
            before = len(open_)
            copies = [before + i for i, job in enumerate(new) for _ in job.choices]
            if len(copies) > len(new):  # several choices of one prompt, which is read once
                branches.select([*range(before), *copies])
            open_ = open_ + [choice for job in new for choice in job.choices]
        if not open_:
            return [], []
        going_on, tokens = write(branches, open_, self._stop_ids)
        for choice in open_:
            choice.update()
        for job in {choice.job: None for choice in open_}:
            job.ring()
        return going_on, tokens

    def _joined(self, branches: Branches, new: Sequence[Job]) -> list[Job]:
        """The new jobs that stand in the batch now. Where their prompts cannot be read (they are long, and memory is
        short), they fail by themselves: nothing of the batch is touched before."""
        try:
            new = [job for job in new if self._begins(job)]
            prompts = [job.prompt for job in new]
            if new:
                branches.join(
                    [p.prompt for p in prompts], [p.negative for p in prompts], [p.guidance for p in prompts]
                )
        except Exception as error:
            _fail(new, error)
            return []
        return new

    def _begins(self, job: Job) -> bool:
        """Tell the likelihood of the prompt, if it is asked for; False where no token is to be written."""
        if job.echo is not None and job.prompt.top is not None:
            job.read = likelihood(self.model, job.prompt, job.echo, adapters=self.adapters)
        if job.prompt.limit > 0:
            return True
        for choice in job.choices:
            choice.update()
        job.ring()
        return False


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        if not job.over:
            job.error = Refused(500, f"the model failed: {first_line(error)}")
            job.ring()
