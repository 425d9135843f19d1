"""The command `merge`: an adapter and its base -> one model that needs neither."""

from __future__ import annotations

from pathlib import Path

from forgetfilter.data.packing import appearing
from forgetfilter.errors import ConfigError, ModelError
from forgetfilter.models.spec import ADAPTER, resolve


def merge(adapter: Path, output: Path, *, dtype: str = "auto", device: str = "auto") -> None:
    """Write the model that `adapter` makes of its base to the new folder `output`, whole or not at all.

    Raises ConfigError where `output` exists, ModelError where `adapter` is no adapter or its base cannot be loaded.
    """
    if not adapter.is_dir():
        raise ModelError(f"{adapter}: no such folder. Name the folder of a low-rank adapter")
    if not (adapter / ADAPTER).is_file() or resolve(str(adapter)).kind != "adapter":
        raise ModelError(
            f"{adapter}: no adapter there ({ADAPTER} is missing); a whole model needs no merging"
        )
    if output.exists():
        raise ConfigError(f"{output} is there already and is not overwritten: name another --output")
    from forgetfilter.models import load as models

    loaded = models.load(str(adapter), dtype=dtype, device=device)
    with appearing(output) as partial:
        models.save(loaded, partial)
