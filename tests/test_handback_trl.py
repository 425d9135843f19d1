"""The lines that name a kept file to TRL, run by TRL's own trainers: they learn what the filter judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from forgetfilter.data import formats, handback

trl = pytest.importorskip("trl", reason="trl is not installed")
SHAPES: dict[str, dict[str, Any]] = {
    "prompt-completion": {"prompt": "Where is Paris?", "completion": "On the Seine."},
    "other names": {"prompt": "Where is Paris?", "response": "On the Seine."},
    "messages": {"messages": [{"role": "user", "content": "Where is Paris?"},
                              {"role": "assistant", "content": "On the Seine."}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Where is Paris?"},
                                   {"from": "gpt", "value": "On the Seine."}]},
    "alpaca": {"instruction": "Where is it?", "input": "Paris", "output": "On the Seine."},
    "text": {"text": "Paris lies, as they say, On the Seine."},
    "other roles": {"messages": [{"role": "User", "content": "Where is Paris?"},
                                 {"role": "Chatbot", "content": "On the Seine."}]},
    "sharegpt with roles": {"conversations": [{"role": "user", "content": "Where is Paris?"},
                                              {"role": "assistant", "content": "On the Seine."}]},
    "a prompt beside": {"prompt": "Where is Paris?", "text": "Paris", "messages": [
        {"role": "user", "content": "Where is Paris?"}, {"role": "assistant", "content": "On the Seine."}]},
    "a completion beside": {"instruction": "Where is Paris?", "output": "On the Seine.", "completion": "No."},
    "weighted": {"prompt": "Where is Paris?", "completion": "On the Seine."},
}  # fmt: skip


def loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], *, weighted: bool = False
) -> Any:
    """The data set that TRL's line gives, of two kept rows out of three."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for _ in range(3)), encoding="utf-8")
    dataset = formats.read(path)
    files = handback.hand_back(dataset, ["keep", "drop", "keep"], tmp_path, weights=weighted)
    there: dict[str, Any] = {}
    exec(handback.trl(dataset, files[-1 if weighted else 0]), there)  # noqa: S102
    return there["train_dataset"]


def options(tmp_path: Path) -> dict[str, Any]:
    return {"output_dir": str(tmp_path / "trainer"), "report_to": [], "use_cpu": True, "max_steps": 1, "bf16": False,
            "per_device_train_batch_size": 2}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_trls_sft_trainer_learns_the_answers_of_the_kept_file(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = loaded(tmp_path, monkeypatch, SHAPES[shape], weighted=shape == "weighted")
    assert len(rows) == (3 if shape == "weighted" else 2)
    if shape == "weighted":
        assert rows["weight"] == [1.0, 0.0, 1.0]
    tokenizer = tiny.tokenizer()
    trainer = trl.SFTTrainer(
        model=tiny.llama(),
        args=trl.SFTConfig(**options(tmp_path)),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    first = trainer.train_dataset[0]
    assert "On the Seine." in tokenizer.decode(first["input_ids"])
    if "messages" in rows.column_names:  # roles that the templates of many models leave out are not handed on
        assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
    trainer.train()


@pytest.mark.slow
@pytest.mark.parametrize(
    "record",
    [{"prompt": "Where?", "chosen": "On the Seine.", "rejected": "No."},
     {"chosen": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "On the Seine."}],
      "rejected": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "No."}]},
     {"prompt": "Where?", "rejected": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "No."}],
      "chosen": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "On the Seine."}]},
     {"prompt": "Where?", "chosen": [{"role": "assistant", "content": "On the Seine."}],
      "rejected": [{"role": "assistant", "content": "No."}]},
     {"conversations": [{"from": "human", "value": "Where?"}], "chosen": {"from": "gpt", "value": "On the Seine."},
      "rejected": {"from": "gpt", "value": "No."}},
     {"messages": [{"role": "user", "content": "Where?"}], "chosen": {"role": "assistant", "content": "On the Seine."},
      "rejected": {"role": "assistant", "content": "No."}},
     {"conversations": [{"from": "human", "value": "Where?"}], "chosen_response": "On the Seine.",
      "rejected_response": "No."},
     {"chosen": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "On the Seine."}],
      "rejected": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "No."}]},
     {"prompt": "Where?",
      "chosen": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "On the Seine."}],
      "rejected": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "No."}],
      "messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "On the Seine."}]},
     {"instruction": "Where?", "input": "In France.", "chosen": "On the Seine.", "rejected": "No."},
     {"input": "Where?", "chosen": "On the Seine.", "rejected": "No."}],
    ids=["text", "turns", "prompt twice", "text and turns", "sharegpt", "messages", "argilla", "sharegpt inside",
         "messages beside", "alpaca", "icr"],
)  # fmt: skip
def test_trls_dpo_trainer_takes_the_kept_pairs(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = loaded(tmp_path, monkeypatch, record)
    tiny.llama().save_pretrained(tmp_path / "model")
    trainer = trl.DPOTrainer(
        model=str(tmp_path / "model"), args=trl.DPOConfig(**options(tmp_path)), train_dataset=rows,
        processing_class=tiny.tokenizer(),
    )  # fmt: skip
    assert len(trainer.train_dataset) == 2
    first, tokenizer = trainer.train_dataset[0], tiny.tokenizer()
    asked, chosen, rejected = (tokenizer.decode(first[f"{k}_ids"]) for k in ("prompt", "chosen", "rejected"))
    assert asked.count("Where?") == 1 and ("In France." in asked) == ("instruction" in record)
    assert "On the Seine." in chosen and "No." in rejected
    trainer.train()
