"""Find the rows that would make a fine-tuned model unsafe; make a model unlearn what got in.

    from forgetfilter import filter_rows

    result = filter_rows(rows, safe=safe_rows, model="smollm2")
    result.kept, result.dropped, result.scores, result.report

Each name is imported when it is first asked for: `import forgetfilter` loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetfilter.errors import ConfigError as ConfigError
    from forgetfilter.errors import DataError as DataError
    from forgetfilter.errors import ForgetfilterError as ForgetfilterError
    from forgetfilter.errors import ModelError as ModelError
    from forgetfilter.filter.api import FilterResult as FilterResult
    from forgetfilter.filter.api import filter_rows as filter_rows
    from forgetfilter.guide.processor import GuidanceProcessor as GuidanceProcessor

# Public name -> the module it lies in.
_PUBLIC = {
    "FilterResult": "forgetfilter.filter.api",
    "filter_rows": "forgetfilter.filter.api",
    "GuidanceProcessor": "forgetfilter.guide.processor",
    "ForgetfilterError": "forgetfilter.errors",
    "ConfigError": "forgetfilter.errors",
    "DataError": "forgetfilter.errors",
    "ModelError": "forgetfilter.errors",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("forgetfilter")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'forgetfilter' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
