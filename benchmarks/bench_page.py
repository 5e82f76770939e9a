"""How fast the page answers: from an event to the next painted frame, in headless Chromium.

python benchmarks/bench_page.py [--tokens 1024] [--layers 13] [--prompts 1] [--rounds 30] [--page F]

Each interaction is dispatched inside the page and timed with performance.now() until the second
animation frame after it, when the first has been painted; frames are 16.7 ms apart, so that nothing
can seem faster than about that. Loading is timed by the browser, from the start of the navigation
to the end of the page's script and to its first painted frame.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import tempfile

import harness

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

from view import browser, seen

from jaxlens.view.prompt import html

TIMED = """
const [act, rounds, done] = arguments;
const frame = () => new Promise((next) => requestAnimationFrame(next));
const cells = () => [...document.querySelectorAll("tbody td[tabindex]")];
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const into = () => document.querySelector("tbody td[tabindex='0']")?.focus();
const acts = {
  idle: () => {},
  hover: (i) => {
    const all = cells();
    all[(i * 37) % all.length].dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
  },
  key: (i) => press(["ArrowLeft", "ArrowDown", "ArrowUp"][i % 3]),
  "key at the edge": () => press("ArrowRight"),
  metric: () => press("m"),
  decoder: () => press("d"),
  range: (i) => press(i % 20 < 10 ? "]" : "["),
};
(async () => {
  if (act !== "hover") into();
  if (act === "key at the edge") {
    const row = document.querySelector("section:first-child table:last-of-type tbody tr");
    row.lastElementChild.focus();
  }
  await frame(), await frame();
  const found = [];
  for (let i = 0; i < rounds; i++) {
    const began = performance.now();
    acts[act](i);
    await frame(), await frame();
    found.push(performance.now() - began);
    await new Promise((next) => setTimeout(next, 30));
  }
  done(found);
})();
"""
LOADED = """
const done = arguments[0];
const entry = performance.getEntriesByType("navigation")[0];
new PerformanceObserver((list) => {
  for (const { name, startTime } of list.getEntries()) {
    if (name === "first-contentful-paint") {
      done({ script: entry.domContentLoadedEventEnd, paint: startTime });
    }
  }
}).observe({ type: "paint", buffered: true });
"""
ACTS = ("idle", "hover", "key", "key at the edge", "metric", "decoder", "range")


def main() -> None:
    """Prints a table and records its raw times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--page", type=pathlib.Path, help="a page that was written already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browser.started() as running:
        path = given.page or pathlib.Path(folder) / "page.html"
        if not given.page:
            prompts = [
                seen.small(given.layers, given.tokens, seed=n, follow=())
                for n in range(given.prompts)
            ]
            path.write_text(html.page(prompts), "utf-8")
        measured = measure(running, path, given.rounds)
    shape = {name: getattr(given, name) for name in ("tokens", "layers", "prompts", "rounds")}
    harness.record("bench_page", {**shape, "page_given": given.page is not None, **measured})


def measure(running: browser.Browser, path: pathlib.Path, rounds: int) -> dict[str, object]:
    """Milliseconds of every interaction, each on a fresh page, and of loading."""
    size = path.stat().st_size
    version = running.driver.capabilities["browserVersion"]
    load = os.getloadavg()[0]
    print(f"{size / 1e6:.2f} MB, Chromium {version}, {os.cpu_count()} cores with a load of {load}")
    print(f"  {'milliseconds':<16} median  worst")
    loads = []
    for _ in range(5):
        running.open(path)
        loads.append(running.driver.execute_async_script(LOADED))
    found: dict[str, list[float]] = {}
    for act in ACTS:
        running.open(path)
        found[act] = running.driver.execute_async_script(TIMED, act, rounds)
        print(f"  {act:<16} {statistics.median(found[act]):6.1f} {max(found[act]):6.1f}")
    for name in ("script", "paint"):
        times = [one[name] for one in loads]
        print(f"  load to {name:<8} {statistics.median(times):6.1f} {max(times):6.1f}")
    cells = running.run("return document.querySelectorAll('tbody td[tabindex]').length")
    return {
        "load": load,
        "bytes": size,
        "chromium": version,
        "cells": cells,
        "loads": loads,
        "ms": found,
    }


if __name__ == "__main__":
    main()
