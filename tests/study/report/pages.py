"""The page of a report, taken apart."""

import base64
import re
from html.parser import HTMLParser

from jaxlens.study.report import content, page


class Page(HTMLParser):
    """Tags, the text of each element by its id or tag, and the tables of figures."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.tables, self.text = [], [], {}, []
        self._figure, self._cell, self._table = None, None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "figure":
            self._figure = dict(attrs)["id"]
            self.tables[self._figure] = []
        if tag == "table":
            self._table = []
            if self._figure:
                self.tables[self._figure].append(self._table)
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("th", "td"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._table[-1].append("".join(self._cell).strip())
            self._cell = None
        if tag == "figure":
            self._figure = None

    def handle_data(self, data):
        self.text.append(data)
        if self._cell is not None:
            self._cell.append(data)


def made(run_dir, nulls=(), variants=()):
    """The page of a run."""
    return page.page(content.gather(run_dir, nulls, variants), "jaxlens report")


def pictures(text):
    """The SVG of every figure, in order; those for dark pages are left out."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"(?! class="dark")', text)
    return [base64.b64decode(one).decode() for one in found]
