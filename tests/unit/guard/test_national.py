"""National numbers are found by Presidio, in a process of its own: its import brings much along, and warns."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import json, sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "stanza", "pandas")))  # as where they are not installed: quicker
from penstock.core.errors import ConfigError
from penstock.guard.pii import Finder
texts = ["Her NHS number is 943 476 5919.", "943 476 5918 apples", "DNI 12345678Z", "write to jane@example.org"]
finder = Finder(["UK_NHS", "ES_NIF"])
found = [[(one.kind, text[one.start : one.end]) for one in finder.spans(text)] for text in texts]
try:
    Finder(["UK_NSH"])
except ConfigError as error:
    found.append(str(error.hint))
json.dump(found, sys.stdout)
"""


def test_presidio_finds_the_national_numbers_that_are_named() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, timeout=110, check=True)
    assert json.loads(done.stdout) == [[["UK_NHS", "943 476 5919"]], [], [["ES_NIF", "12345678Z"]], [], "did you mean 'UK_NHS'?"]
