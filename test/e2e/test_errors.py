"""Every numbered error has a page and a test, and every number that the sources print is registered."""

import re
import subprocess

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


def test_every_error_is_provoked():
    """By its number in a lit test, by its name in a unit test, or by either in a Python one."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "test"], cwd=helix.ROOT,
                            capture_output=True, text=True, check=True).stdout.split()
    texts = {suffix: "\n".join((helix.ROOT / name).read_text() for name in listed if name.endswith(suffix))
             for suffix in (".test", ".mlir", ".py", ".cpp")}

    def provokes(number, name):
        return (re.search(rf"HLX{number}\b", texts[".test"] + texts[".mlir"] + texts[".cpp"])
                or re.search(rf"\bErrorCode::{name}\b", texts[".cpp"]) or re.search(rf"\b(HLX)?{number}\b", texts[".py"]))

    assert not [f"HLX{number}" for number, (name, _) in ERRORS.items() if not provokes(number, name)]
