"""A headless Chromium for tests of the page, and what they ask it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

DARK = {"name": "prefers-color-scheme", "value": "dark"}
STILL = {"name": "prefers-reduced-motion", "value": "reduce"}

_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--no-default-browser-check",
    "--window-size=1280,900",
)  # fmt: skip


def start(profile: Path) -> Any:
    """A driver with a fresh profile; skips where no browser or driver is installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(f"no {'Chromium' if chromium is None else 'chromedriver'} found")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


class Browser:
    """A page that is open in a browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(
        self, page: Path, width: int = 1280, height: int = 900, features: tuple[Any, ...] = (), slowdown: int = 1
    ) -> Browser:
        """Opens a page; `slowdown` makes the browser's processor that many times slower."""
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # forgets what was before
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": list(features)})
        self.driver.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": slowdown})
        self.driver.get(page.as_uri())
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> Any:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        (found,) = self.all(selector)
        return found

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def hover(self, element: Any) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        self.run("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
        ActionChains(self.driver).move_to_element(element).perform()

    def click(self, element: Any) -> None:
        self.run("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
        element.click()

    def keys(self, *keys: str) -> None:
        """Presses keys where the focus is; names are those of `selenium.webdriver.common.keys.Keys`."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        actions = ActionChains(self.driver)
        for key in keys:
            actions.send_keys(getattr(Keys, key, key))
        actions.perform()

    def focused(self) -> str:
        """What the focused element is called."""
        return self.run(
            "return document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
        )

    def problems(self) -> list[str]:
        """Messages on the console, errors of the page's policy among them."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses of everything that the page has asked for, itself first; what other tabs ask for is not its own."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in asked if params["documentURL"] == self.driver.current_url]

    def shifted(self) -> float:
        """Sum of the layout shifts since the page was opened, those at once after input too."""
        return self.driver.execute_async_script(
            "const done = arguments[0]; let sum = 0;"
            "const add = (list) => { for (const entry of list.getEntries()) sum += entry.value; };"
            "new PerformanceObserver(add).observe({type: 'layout-shift', buffered: true});"
            "setTimeout(() => done(sum), 150);"
        )


def number(text: str) -> float:
    """The number at the head of a text of the page, such as ``−1 234.5 nJ`` with its thin spaces."""
    return float(text.replace("\u2009", "").replace("−", "-").split()[0])
