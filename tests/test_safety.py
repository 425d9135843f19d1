"""What a hostile model folder, a hostile template or a curious library cannot do."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import llama, row, tokenizer

from forgetfilter.errors import DataError, ForgetfilterError, ModelError
from forgetfilter.models import load as models
from forgetfilter.models.rendering import encode
from forgetfilter.runs import Run

SOURCE = Path(models.__file__).parents[1]
RUN_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree: ast.AST) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each call of a source: its dotted name, and its keywords that are constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words = {k.arg: getattr(k.value, "value", k.value) for k in node.keywords if k.arg}
            yield ast.unparse(node.func), words


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_source_reads_what_may_run_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not RUN_CODE & {name.partition(".")[0] for name in names}
    for name, words in calls(tree):
        assert name not in ("torch.load", "eval", "os.system", "yaml.unsafe_load"), name
        assert words.get("allow_pickle", False) is False
        assert words.get("trust_remote_code", False) is False
        assert words.get("shell", False) is False


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model.pt", "model.pkl"])
@pytest.mark.parametrize("whole", [True, False], ids=["beside safetensors", "alone"])
def test_pickled_weights_are_never_read(name: str, whole: bool, tmp_path: Path) -> None:
    import pickle

    folder, mark = tmp_path / "model", tmp_path / "ran"
    llama().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if not whole:
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    if whole:
        models.load(str(folder))
    else:
        with pytest.raises(ModelError, match="no safetensors weights in this folder"):
            models.load(str(folder))
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())  # noqa: S301 (the payload does work)
    assert mark.exists()


def test_an_adapter_of_pickled_weights_is_never_read(tmp_path: Path) -> None:
    import pickle

    mark = tmp_path / "ran"
    settings = {"base_model_name_or_path": "nano", "peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(ModelError, match=r"an adapter without adapter_model\.safetensors"):
        models.load(str(tmp_path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__[1].__subclasses__() }}",
     "{{ messages.append.__globals__['__builtins__']['open']('ran', 'w') }}",
     "{% for m in messages %}{{ m.__class__.__base__.__subclasses__()[0]('ran') }}{% endfor %}",
     "{% for i in range(10 ** 12) %}x{% endfor %}", "{{ 1 / 0 }}", "{% for %}", "{{ 'x' * 10 ** 15 }}"],
)  # fmt: skip
def test_a_hostile_template_runs_nothing_and_is_refused_in_words(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="the model's chat template refuses this row"):
        encode([row("Where is Paris?", "In France.")], tokenizer(template), max_length=64)
    assert not [*tmp_path.iterdir()]


def test_a_run_folder_is_its_users_alone(tmp_path: Path) -> None:
    with Run.open(tmp_path / "runs" / "mine", {}, {}):
        pass
    assert (tmp_path / "runs" / "mine").stat().st_mode & 0o077 == 0


def test_errors_of_ours_hold_no_secret_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    with pytest.raises(ForgetfilterError) as told:
        models.load(str(tmp_path / "no" / "such" / "model"))
    assert "hf_secret_value" not in str(told.value)


NO_NETWORK = """
import socket

def refused(self, address):
    with open("asked", "a") as file:
        file.write(f"{address}\\n")
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = refused
socket.getaddrinfo = lambda *a, **k: refused(None, a)
"""


@pytest.mark.slow
def test_filter_with_the_embedded_model_asks_no_network(
    command: Callable[..., Any], environment: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "refusing").mkdir()
    (tmp_path / "refusing" / "sitecustomize.py").write_text(NO_NETWORK)
    rows = [{"prompt": f"What is {i} and 1?", "completion": f"It is {i + 1}."} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    online = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "")  # the command sees to it by itself
    path = os.pathsep.join([str(tmp_path / "refusing"), environment["PYTHONPATH"]])
    quick = ("--algorithm", "paper", "--threshold", "fixed", "--review-steps", "1", "--num-train-epochs", "1")
    done = command("filter", "rows.jsonl", *quick, "-o", "run", PYTHONPATH=path, **online)
    assert done.returncode in (0, 3), done.stderr
    assert not (tmp_path / "asked").exists(), (tmp_path / "asked").read_text()
    shutil.rmtree(tmp_path / "run")
