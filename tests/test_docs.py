"""The documentation site builds without a warning, loads nothing from elsewhere and is whole."""

import html.parser
import os
import pathlib
import re
import subprocess
import sys
import time
import tomllib

import docs_pages
import pytest
import yaml

import jaxlens
from jaxlens import config, schema
from jaxlens.cli import main
from jaxlens.tally import definitions

ROOT = pathlib.Path(__file__).parents[1]

# Attributes whose address a browser fetches when it shows the page; of links only these kinds.
LOADED = {"src", "srcset", "poster", "data"}
LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect"}
ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env=dict(os.environ) | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Loads(html.parser.HTMLParser):
    """Addresses that a page makes the browser fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.found += [told[name] or "" for name in LOADED & set(told)]
        if tag == "link" and LOADED_LINKS & set((told.get("rel") or "").split()):
            self.found.append(told.get("href") or "")
        self.found += re.findall(r"url\(['\"]?([^'\")]+)", told.get("style") or "")


def loads(text):
    parser = Loads()
    parser.feed(text)
    return parser.found


def test_no_page_loads_anything_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 20
    for page in pages:
        found = loads(page.read_text())
        assert found and not list(filter(ELSEWHERE.match, found)), page
    for sheet in site.rglob("*.css"):
        named = re.findall(r"(?:url\(|@import\s*)['\"]?([^'\")]+)", sheet.read_text())
        assert not list(filter(ELSEWHERE.match, named)), sheet


def test_the_site_shows_commands_as_they_are_typed(site):
    text = re.sub(r"<[^>]+>", "", (site / "cli.html").read_text())
    assert "jaxlens run [OPTIONS]" in text and "jaxlens verify [OPTIONS] RUN_DIR" in text


@pytest.mark.parametrize("width", [1440, 390])
def test_the_search_of_a_site_on_a_disk_finds_pages_and_loads_nothing(chromium, site, width):
    chromium.open(site / "index.html", width=width)
    if width < 1000:  # there the box lies behind a button
        chromium.run("document.querySelector('label[for=__search].md-header__button').click()")
    chromium.run("document.querySelector('.md-search__input').focus()")
    chromium.press("retention")
    found = []
    for _ in range(200):  # the index is built when the box is first used
        found = chromium.each(".md-search-result__link", "e.href")
        if found:
            break
        time.sleep(0.1)
    pages = {pathlib.PurePosixPath(url.partition("?")[0]).name for url in found}
    assert "definitions.html" in pages
    for _ in range(50):  # the box slides in
        if (wide := chromium.run("return document.documentElement.scrollWidth")) <= width:
            break
        time.sleep(0.1)
    assert wide <= width
    chromium.read_logs()
    assert all(url.startswith(("file:", "data:", "about:")) for url in chromium.asked)
    assert chromium.complaints == []
    chromium.driver.get(found[0])
    assert "retention" in chromium.run("return document.body.textContent").lower()


def test_what_is_loaded_from_elsewhere_would_be_found():
    for bad in (
        '<script src="https://a.example/x.js"></script>',
        '<link rel="stylesheet" href="//a.example/x.css">',
        '<img alt="" src="HTTP://a.example/x.png">',
    ):
        assert list(filter(ELSEWHERE.match, loads(bad))), bad
    assert not loads('<a href="https://a.example">x</a><link rel="canonical" href="https://a">')


def test_every_page_of_docs_is_in_the_menu():
    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {p.name for p in (ROOT / "docs").glob("*.md")}
    notebooks = {f"notebooks/{p.stem}.md" for p in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert sorted(nav) == sorted(pages | notebooks)


def test_the_command_line_page_has_every_command_and_option():
    text = docs_pages.commands()
    for name in main.app.resolved_commands():
        assert name.startswith("-") or f"\n### {name}\n" in f"\n{text}", name
    assert "`--shard STR`" in text and "`--to CHOICE`" in text
    assert "Args:" not in text and "--log-format" not in text


def test_the_settings_page_has_every_key_and_its_meaning():
    text = docs_pages.settings()
    for key in dict(config.keys()):
        assert re.search(rf"^\| `{re.escape(key)}` \| .+ \| .* \| .{{10,}} \|$", text, re.MULTILINE)
    assert "| `lens.decoder` | `final_norm`, `plain`, `final_norm_nobias` | `final_norm` |" in text
    assert "| `corpus.strict` | `true`, `false` | `false` |" in text
    assert "| `lens.temperatures` | numbers |  |" in text


def test_the_format_page_has_every_column_and_tally():
    columns, tallies = docs_pages.columns(), docs_pages.tallies()
    assert columns.count("\n") == 1 + len(schema.QUANTITIES)
    assert tallies.count("\n") == 1 + len(definitions.BY_NAME)
    assert all(f"| `{name}` |" in columns for name in schema.QUANTITIES)
    assert str(schema.FORMAT_VERSION) in docs_pages.version()


def test_all_that_can_be_generated_is_asked_for_and_the_other_way_round():
    text = "".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))
    assert set(re.findall(r"<!-- generated: (\w+) -->", text)) == set(docs_pages.GENERATED)
    assert "<!-- generated" not in docs_pages.on_page_markdown(text)


def test_the_python_page_has_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text()
    for name in set(jaxlens.__all__) - {"__version__"}:
        assert f"| `{name}` |" in text, name


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["version"] == jaxlens.__version__
    assert cited["license"] == project["license"]
    assert cited["authors"] == project["authors"]
    page = (ROOT / "docs" / "citing.md").read_text()
    assert f"{{{jaxlens.__version__}}}" in page and cited["title"] in page
