"""A page in a headless Chromium, asked a question; skips where there is none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_ASK = """<script>
window.faults = [];
addEventListener("error", e => faults.push(e.message));
addEventListener("load", () => setTimeout(() => {
  const told = (() => { %s })();
  document.title = "PROBE" + JSON.stringify({ faults, ...told });
}, 300));
</script>"""


def asked(page: Path, html: str, script: str) -> dict[str, Any]:
    """Return what the script returns in the page once it is loaded, and `faults`: what went wrong in any script."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    page.write_text(html.replace("<head>", f"<head>{_ASK % script}", 1), encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1240,2000",
         f"--user-data-dir={page.parent}/profile", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r"<title>PROBE(\{.*?\})</title>", done.stdout)
    assert found is not None, "the page's script did not come to its end"
    return dict(json.loads(found.group(1)))
