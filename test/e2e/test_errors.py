"""Every numbered error has a page, and every number that the sources print is registered."""

import re

import helix

REGISTRY = (helix.ROOT / "include/helix/Errors.def").read_text()
ERRORS = {int(n): (name, title) for n, name, title in re.findall(r'^HELIX_ERROR\((\d+), (\w+), "(.*)"\)', REGISTRY, re.M)}


def test_numbers_are_unique():
    assert len(re.findall(r"^HELIX_ERROR\(", REGISTRY, re.M)) == len(ERRORS) > 10


def test_pages_and_errors_match():
    pages = {int(p.stem[3:]): p.read_text() for p in (helix.ROOT / "docs/errors").glob("HLX*.md")}
    assert pages.keys() == ERRORS.keys()
    for number, text in pages.items():
        assert text.startswith(f"# HLX{number}: {ERRORS[number][1]}\n"), f"title of HLX{number}.md"


def test_every_error_is_used():
    sources = [p for folder in ("dialects", "lib", "passes", "runtime", "tools") for p in (helix.ROOT / folder).rglob("*")
               if p.suffix in (".cpp", ".h")]
    text = "\n".join(p.read_text() for p in sources)
    unused = [name for name, _ in ERRORS.values() if not re.search(rf"\bErrorCode::{name}\b", text)]
    assert not unused
