"""Pages that are made from the code: every public name from its docstring, every warning from its status."""

import inspect
from typing import Any

import pymc_mte
from pymc_mte.status import Status

API, WARNINGS = "<!-- public names -->", "<!-- warnings -->"

PARTS = {
    "Describe": ("model", "variable", "modelfile", "interventions"),
    "Data": ("data", "simulate"),
    "Identify": ("identify",),
    "Estimate by moments": ("moments",),
    "Draw the posterior": ("bayes",),
    "Figures": ("plots",),
    "Errors": ("errors",),
}
"""Parts of the page of public names, by the modules that the names come from; the rest come last."""

REST = "Answer, compare, keep"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the places that are marked in a page."""
    for mark, made in ((API, api_page), (WARNINGS, warnings_page)):
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return markdown


def api_page() -> str:
    """Every public name: signature, first line, and the rest of its docstring as it stands."""
    parts: dict[str, list[str]] = {part: [] for part in (*PARTS, REST)}
    for name in sorted(pymc_mte.__all__):
        thing = getattr(pymc_mte, name)
        module = thing.__module__.removeprefix("pymc_mte.").partition(".")[0]
        part = next((part for part, modules in PARTS.items() if module in modules), REST)
        parts[part].append(_entry(name, thing))
    return "\n\n".join(f"## {part}\n\n" + "\n\n".join(found) for part, found in parts.items() if found)


def _entry(name: str, thing: Any) -> str:
    first, _, rest = (inspect.getdoc(thing) or "").partition("\n")
    out = [f"### {name}", first.replace("<", "&lt;")]
    if inspect.isfunction(thing):
        out.append(f"```text\n{name}{_signature(thing)}\n```")
    if rest.strip():
        out.append(f"```text\n{rest.strip()}\n```")
    if inspect.isclass(thing):
        out += _methods(thing)
    return "\n\n".join(out)


def _methods(thing: type) -> list[str]:
    """Own public methods of a class, with their first lines."""
    lines = []
    for name, method in vars(thing).items():
        plain = getattr(method, "__func__", method)
        if not name.startswith("_") and inspect.isfunction(plain):
            said = (inspect.getdoc(plain) or "").partition("\n")[0]
            lines.append(f"- `{name}{_signature(plain)}`: {said}")
    return ["\n".join(lines)] if lines else []


def _signature(function: Any) -> str:
    """Names and defaults of the parameters, without their types, which the docstring gives."""
    kept = []
    for parameter in inspect.signature(function).parameters.values():
        kept.append(parameter.replace(annotation=inspect.Parameter.empty))
    return str(inspect.Signature(kept))


def warnings_page() -> str:
    """Every status: its name as printed, its code, and what it says and advises."""
    made = []
    for status in Status:
        if status is not Status.OK:
            shown = status.name.replace("_", " ").lower()
            made.append(f"### {shown}\n\n`Status.{status.name}`\n\n{status.value}")
    return "\n\n".join(made)
