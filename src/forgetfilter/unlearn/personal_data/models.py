"""Detectors that need a package or a model of their own: a token-classification model by path or id, presidio."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from forgetfilter.errors import ConfigError, ModelError, unknown
from forgetfilter.unlearn.personal_data.spans import Detector, Span

NOT_PERSONAL = ("CARDINAL", "DATE", "PRODUCT", "ORDINAL")  # labels of a model that the paper leaves out


class Ner:
    """A detector that reads with a Hugging Face token-classification model; made by `ner`."""

    def __init__(self, pipeline: Any, kinds: Collection[str], batch_size: int) -> None:
        self._pipeline, self._kinds, self._batch_size = pipeline, kinds, batch_size

    def __call__(self, text: str) -> list[Span]:
        """What the model finds in one text."""
        return self.many([text])[0]

    def many(self, texts: Sequence[str]) -> list[list[Span]]:
        """What it finds in each text, batches of several at a time."""
        from forgetfilter.models.load import quiet

        found: list[list[Span]] = [[] for _ in texts]
        full = [i for i, text in enumerate(texts) if text.strip()]
        with quiet():
            answers = self._pipeline([texts[i] for i in full], batch_size=self._batch_size) if full else []
        for i, entities in zip(full, answers, strict=True):
            found[i] = self._spans(texts[i], entities)
        return found

    def _spans(self, text: str, entities: Iterable[Mapping[str, Any]]) -> list[Span]:
        spans: list[Span] = []
        for entity in sorted(entities, key=lambda e: (e["start"], e["end"])):
            label = re.sub(r"\A[BILUES]-", "", entity["entity_group"])
            start, end = _whole_words(text, entity["start"], entity["end"])
            if start == end or label not in self._kinds:
                continue
            how = f"model {float(entity['score']):.2f}"
            if spans and spans[-1].kind == label and start <= spans[-1].end:
                start, end, how = spans[-1].start, max(end, spans[-1].end), spans.pop().how
            spans.append(Span(start, end, label, text[start:end], how))
        return spans


def ner(
    model: str,
    *,
    labels: Collection[str] | None = None,
    exclude: Collection[str] = NOT_PERSONAL,
    window: int = 512,
    batch_size: int = 8,
    device: str = "auto",
) -> Ner:
    """A detector by a token-classification model: a folder, or a hub id, the only thing that may use the network.

    Kinds are the model's entity labels, B- and I- taken off and their tokens joined; `labels` keeps only
    these, `exclude` leaves these out. Texts longer than `window` tokens are read in windows that overlap by a
    quarter. Safetensors only, no code from the model. ModelError where there is no such model or it cannot
    tell entities, ConfigError for a label that it does not have.
    """
    from transformers import pipeline

    from forgetfilter.models import classifiers
    from forgetfilter.models import load as models

    network, tokenizer, _ = classifiers.load(model, of="token", device=device)
    if not tokenizer.is_fast:
        raise ModelError(f"model {model}: its tokenizer has no fast version, which gives each token's place")
    known = {re.sub(r"\A[BILUES]-", "", label) for label in network.config.id2label.values()} - {"O"}
    for label in labels or ():
        if label not in known:
            raise ConfigError(f"model {model}: {unknown('entity label', label, known)}")
    positions = getattr(network.config, "max_position_embeddings", None) or window
    tokenizer.model_max_length = min(window, positions, tokenizer.model_max_length)
    with models.quiet():
        reader = pipeline(
            "token-classification",
            model=network,
            tokenizer=tokenizer,
            aggregation_strategy="simple",
            stride=tokenizer.model_max_length // 4,
        )
    wanted = known - set(exclude) if labels is None else set(labels) - set(exclude)
    return Ner(reader, wanted, batch_size)


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The place without outer white space, widened to the ends of the words it cuts: a half name is none."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        while start and text[start - 1].isalnum() and text[start].isalnum():
            start -= 1
        while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
            end += 1
    return start, end


def presidio(language: str = "en", *, kinds: Collection[str] | None = None) -> Detector:
    """A detector by presidio-analyzer's pattern recognizers, without a spaCy model and without the network.

    Kinds are presidio's entity types; `kinds` keeps only these. ConfigError where presidio is not installed.
    """
    try:
        import tldextract  # ty: ignore[import-not-found]
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # ty: ignore[import-not-found]
        from presidio_analyzer.nlp_engine import NoOpNlpEngine  # ty: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            f"detector presidio: {error}. Install it with: pip install 'forgetfilter[presidio]'"
        ) from error
    # Its own default asks the network for the list of domain endings, each time anew.
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    engine = NoOpNlpEngine(models=[{"lang_code": language, "model_name": "none"}])
    engine.load()
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language], nlp_engine=engine)
    analyzer = AnalyzerEngine(nlp_engine=engine, registry=registry, supported_languages=[language])

    def find(text: str) -> list[Span]:
        results = analyzer.analyze(text=text, language=language, entities=list(kinds) if kinds else None)
        return [
            Span(r.start, r.end, r.entity_type, text[r.start : r.end], f"pattern {r.score:.2f} (presidio)")
            for r in results
        ]

    return find
