"""Everybody can use the page: axe-core finds nothing serious, every field has a name, and the keyboard is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from web.conftest import OpenTab, Tab

TABS = ("Train", "Runs", "Chat", "Evaluate", "Export", "Data")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_tab: OpenTab, scheme: str) -> None:
    """On every tab, in light and dark: contrast, names, roles, order."""
    tab = open_tab(color_scheme=scheme)
    found = {}
    for name in TABS:
        tab.choose(name)
        tab.page.wait_for_timeout(1500)  # the tab has faded in
        for violation in Axe().run(tab.page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found[f"{name}: {violation['id']}"] = [node["html"][:160] for node in violation["nodes"][:4]]
    assert not found


def test_the_keyboard_reaches_the_fields_and_start(tab: Tab) -> None:
    """Tab goes through the head to the first field, arrow keys through the tabs; Enter presses what is reached."""
    seen = set()
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        seen.add(tab.page.evaluate("""() => {
            const own = document.activeElement, place = own.closest("[id^=option-], [id^=train-]");
            return own.id || (place && place.id) || own.innerText;
        }"""))
        if tab.page.evaluate("!!document.activeElement.closest('#train-start')"):
            break
    assert any(name.startswith("option-model_name_or_path") for name in seen if name), seen
