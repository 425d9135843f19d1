"""`merge` writes the model that an adapter makes of its base, and needs neither of them afterwards."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny import llama, tokenizer

from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.models.load import add_lora, load
from forgetfilter.models.merging import merge

IDS = torch.tensor([[1, 5, 7, 9]])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    llama().save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A folder with an adapter that changes every answer, and its logits for IDS."""
    model = add_lora(load(str(base), dtype="float32", device="cpu").model, rank=4, alpha=8, seed=3)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.1)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter", model.eval()(IDS).logits


def test_the_merged_model_answers_as_the_adapter_and_stands_alone(base: Path, adapter, tmp_path: Path):
    folder, logits = adapter
    merge(folder, tmp_path / "whole", dtype="float32", device="cpu")
    shutil.rmtree(base)
    shutil.rmtree(folder)
    with torch.no_grad():
        again = load(str(tmp_path / "whole"), dtype="float32", device="cpu")
        assert torch.allclose(again.model(IDS).logits, logits, atol=1e-4)
    assert not (tmp_path / "whole" / "adapter_config.json").exists()


def test_nothing_is_overwritten_and_a_whole_model_is_not_merged(base: Path, adapter, tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="there is there already and is not overwritten"):
        merge(adapter[0], tmp_path / "there")
    with pytest.raises(ModelError, match="no adapter there"):
        merge(base, tmp_path / "new")
    with pytest.raises(ModelError, match="gone: no such folder"):
        merge(tmp_path / "gone", tmp_path / "new")
    shutil.rmtree(base)
    with pytest.raises(ModelError, match="its base could not be loaded"):
        merge(adapter[0], tmp_path / "new")
    assert not (tmp_path / "new").exists()
