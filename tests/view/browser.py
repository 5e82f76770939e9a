"""A real browser for pages: headless Chromium, started once, that must find nothing to load."""

import contextlib
import json
import pathlib
import shutil
import tempfile

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Containers have a /dev/shm of 64 MB.
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
SETTLED = "requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))"
VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(event.violatedDirective);
});
"""


@pytest.fixture(scope="session")
def chromium():
    """The browser, one for all tests of a process."""
    with started() as browser:
        yield browser


@contextlib.contextmanager
def started():
    """A browser that is gone in the end, with all that it wrote."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="jaxlens-browser-", ignore_cleanup_errors=True) as home:
        for flag in (*FLAGS, f"--user-data-dir={home}"):
            options.add_argument(flag)
        # The path of the driver is given, so that selenium looks for none on the network.
        service = webdriver.ChromeService(executable_path=driver)
        running = webdriver.Chrome(options=options, service=service)
        try:
            yield Browser(running)
        finally:
            running.quit()


class Browser:
    """Chromium with one page open.

    Attributes:
        driver: Selenium's.
        complaints: Lines that the console of the page had so far.
        asked: Addresses that the page asked for so far.
    """

    def __init__(self, driver):
        self.driver = driver
        self.complaints, self.asked = [], []
        driver.set_script_timeout(30)
        self.command("Page.addScriptToEvaluateOnNewDocument", source=VIOLATIONS)

    def command(self, name, **values):
        """One of the commands of Chromium's own protocol."""
        return self.driver.execute_cdp_cmd(name, values)

    def open(self, path, width=1440, height=900, scheme="light", touch=False):
        """Opens a file in a window of a size, as someone who prefers light or dark.

        Returns:
            The address of the file.
        """
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", media="", features=[feature])
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.command("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.read_logs()
        self.complaints, self.asked = [], []
        address = pathlib.Path(path).as_uri()
        self.driver.get(address)
        self.settle()
        return address

    def run(self, script, *values):
        """What a function body of JavaScript returns."""
        return self.driver.execute_script(script, *values)

    def each(self, css, of):
        """What an expression of ``e`` is for every element that a selector finds."""
        return self.run(
            f"return [...document.querySelectorAll(arguments[0])].map((e) => {of})", css
        )

    def style(self, css, name):
        """A computed property of the first element that a selector finds."""
        return self.each(css, f"getComputedStyle(e)['{name}']")[0]

    def settle(self):
        """Waits until what was done is painted."""
        self.driver.execute_async_script(SETTLED)

    def read_logs(self):
        """Adds what the logs of the browser hold to what is known of this page."""
        self.complaints += [line["message"] for line in self.driver.get_log("browser")]
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] != "Network.requestWillBeSent":
                continue
            request = message["params"]
            # The browser starts with a page of its own, which goes on asking for a while.
            if not request["documentURL"].startswith("chrome"):
                self.asked.append(request["request"]["url"])

    def point_at(self, element):
        """Moves the mouse onto an element."""
        self.run("arguments[0].scrollIntoView({ block: 'center' })", element)
        box = self.run(
            "const b = arguments[0].getBoundingClientRect();"
            "return [b.left + b.width / 2, b.top + b.height / 2]",
            element,
        )
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
        self.settle()

    def press(self, *keys):
        """Presses keys one after the other, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()
        self.settle()
