"""Make the pictures of docs/finding.md: a recording of examples/finding/service.py, in a browser.

Chromium opens the page that `python -m contextvars_cy trace` writes, and does what the text tells the reader to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PROJECT = Path(__file__).parents[1]
PROGRAM = PROJECT / "examples" / "finding" / "service.py"
PICTURES = PROJECT / "docs" / "pictures"
# As narrow as the page is with its panel at the side: the text is read beside the site's own.
WIDTH, HEIGHT = 1120, 910


def chromium(logged: bool = False) -> webdriver.Chrome:
    """A browser without a window, to be left by `with`. `logged`: its console and its requests can be read."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(argument)
    # Its sandbox is not for root, which tests in containers are.
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    if logged:
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = shutil.which("chromedriver")
    assert driver and options.binary_location, "run tools/chromium.sh"
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def recorded(folder: Path) -> Path:
    """The page of a recording of the program, without the folder where it lies, which is nobody's business."""
    shutil.copy(PROGRAM, folder)
    page = folder / "trace.html"
    command = [sys.executable, "-m", "contextvars_cy", "trace", "-o", str(page), PROGRAM.name]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace(f"{folder.resolve()}{os.sep}", ""), encoding="utf-8")
    return page


class Camera:
    def __init__(self, browser: webdriver.Chrome, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def take(self, name: str, title: str, theme: str = "light") -> None:
        """The title is that of the panel, which is as it should be, or no picture is taken."""
        found = self.browser.find_element(By.CSS_SELECTOR, "#panel h2").text
        if found != title:
            raise RuntimeError(f"the page shows {found!r}, and not {title!r}")
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        # What is chosen is to be seen, not what has the focus.
        self.browser.execute_script("document.activeElement.blur()")
        self.browser.execute_async_script(frames)
        self.browser.save_screenshot(str(self.folder / name))

    def click(self, selector: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def press(self, *keys: str) -> None:
        self.browser.find_element(By.ID, "lanes").send_keys(*keys)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        browser.get(recorded(Path(temporary)).as_uri())
        camera = Camera(browser, folder)
        camera.take("finding-page.png", "Variables")
        camera.click(".answers li button")
        camera.take("finding-read.png", "read without a value: user")
        # The event of the variable before, which is the set.
        camera.press("p", Keys.ENTER)
        camera.take("finding-set.png", "set: user", theme="dark")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", dest="folder", type=Path, default=PICTURES, help="the folder for them")
    make(parser.parse_args().folder)
