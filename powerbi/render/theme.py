"""How the report looks: colours, fonts and sizes, from the report's own theme file.

Here: the theme as values. Not here: drawing. Segoe UI is named first; where it is not installed, the next free font
of the list is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FONTS = "Segoe UI, Selawik, Open Sans, Noto Sans, DejaVu Sans, Arial, sans-serif"
# Power BI's own first colours, for a report without a theme file.
_COLOURS = ("#118DFF", "#12239E", "#E66C37", "#6B007B", "#E044A7", "#744EC2", "#D9B300", "#D64550")


@dataclass(frozen=True)
class Theme:
    """Colours as #RRGGBB."""

    colours: tuple[str, ...] = _COLOURS
    foreground: str = "#252423"
    muted: str = "#605E5C"
    grid: str = "#E1DFDD"
    page: str = "#F3F4F7"
    card: str = "#FFFFFF"
    accent: str = "#118DFF"
    good: str = "#1AAB40"
    bad: str = "#D64554"
    fonts: str = FONTS


def theme_of(theme: dict[str, Any]) -> Theme:
    """Read a report's theme; what it does not say is Power BI's default."""
    default = Theme()
    styles = theme.get("visualStyles", {})
    page = styles.get("page", {}).get("*", {}).get("background", [{}])[0].get("color", {}).get("solid", {}).get("color")
    family = theme.get("textClasses", {}).get("label", {}).get("fontFace")
    return Theme(
        colours=tuple(theme.get("dataColors", ())) or default.colours,
        foreground=theme.get("foreground", default.foreground),
        muted=theme.get("foregroundNeutralSecondary", default.muted),
        grid=theme.get("backgroundNeutral", default.grid),
        page=page or default.page,
        card=theme.get("background", default.card),
        accent=theme.get("tableAccent", default.accent),
        good=theme.get("good", default.good),
        bad=theme.get("bad", default.bad),
        fonts=f"{family}, {FONTS}" if family and family != "Segoe UI" else FONTS,
    )
