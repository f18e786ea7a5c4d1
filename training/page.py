"""Pages for people: one file each, with style and pictures inside and nothing from elsewhere.

Templates and styles lie in `training/pages/`: `page.html` is the frame, `report.css` the style of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

STYLE = "report.css"


def render(
    template: str,
    values: Mapping[str, object],
    styles: tuple[str, ...] = (),
    filters: Mapping[str, Callable[..., object]] | None = None,
) -> str:
    """The page. styles: files that follow the common one; filters: what the template calls by name."""
    loader: BaseLoader = PackageLoader("training", "pages")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters or {})
    style = "\n".join(loader.get_source(environment, name)[0] for name in (STYLE, *styles))
    return environment.get_template(template).render(values, style=Markup(style))
