"""The page about events, for who writes a program that listens to them: one HTML file, made from the AsyncAPI document.

No script and nothing from elsewhere: it can be saved, printed and searched by the browser.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

import orjson

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --ground: #fff; --shade: #f5f7f9; --link: #0b5cad; --mark: #eef4fb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #333c48; --ground: #14181e; --shade: #1c222a; --link: #79b4f2; --mark: #1b2b3d }
}
* { box-sizing: border-box }
html { scroll-padding-top: 1rem }
body { margin: 0; font: 15px/1.6 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; color: var(--ink);
  background: var(--ground); display: grid; grid-template-columns: 17rem minmax(0, 56rem); gap: 0 2.5rem }
nav { position: sticky; top: 0; align-self: start; height: 100vh; overflow: auto; padding: 1.5rem 1rem; border-right: 1px solid var(--line);
  background: var(--shade); font-size: 13.5px }
nav h2 { font-size: 12px; letter-spacing: .04em; color: var(--soft); margin: 1.4em 0 .3em }
nav ul { list-style: none; margin: 0; padding: 0 }
nav li a { display: block; padding: .1em .4em; border-radius: 4px; overflow-wrap: anywhere }
nav li a:hover { background: var(--mark) }
main { padding: 1.5rem 1.5rem 6rem 0; min-width: 0 }
a { color: var(--link); text-decoration: none } a:hover { text-decoration: underline }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .2em 0 .6em } main > h2 { margin-top: 3rem; border-bottom: 1px solid var(--line) }
article { padding-top: 1.6rem } article h3 { font-size: 1.2rem; margin: 0 0 .2em } article p { margin: .4em 0 }
dl { display: grid; grid-template-columns: 8.5rem minmax(0, 1fr); gap: .15em .8em; margin: .6em 0; font-size: 14px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace } code { background: var(--shade); padding: .1em .3em; border-radius: 3px }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 6px; padding: .8em 1em; overflow: auto; margin: .4em 0 }
pre code { padding: 0; background: none }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin: .5em 0 } th { text-align: left; font-weight: 600; color: var(--soft) }
th, td { border-bottom: 1px solid var(--line); padding: .3em .8em .3em 0; vertical-align: top; overflow-wrap: anywhere } td.deep { padding-left: 1.2em }
td:first-child { white-space: nowrap; width: 1% } td:nth-child(2) { color: var(--soft); white-space: nowrap; width: 9rem }
details { margin: .4em 0 } summary { cursor: pointer; color: var(--link) }
.tag { font-size: 12px; color: var(--soft); font-weight: 400 }
@media (max-width: 60rem) { body { display: block } nav { position: static; height: auto; border: 0 } main { padding: 1rem } td:first-child { white-space: normal } }
@media print { nav { display: none } body { display: block } details > * { display: block } }
"""
MOST_WORDS = 6  # of a field that are shown at once
ADDRESS = "/docs/events"  # anchors are whole addresses: the page may be linked to from anywhere


def page(document: dict[str, Any]) -> bytes:
    """`document` as gateway.asyncapi makes it."""
    info, channels = document["info"], document["channels"]
    by_service: dict[str, list[str]] = {}
    for key in channels:
        by_service.setdefault(key.partition(".")[0], []).append(key)
    about = {tag["name"]: tag.get("description", "") for tag in info["tags"]}
    contents, chapters = [], []
    for service, keys in by_service.items():
        title = "every service" if service == "chassis" else service
        links = "".join(f'<li><a href="{ADDRESS}#{escape(key)}">{escape(channels[key]["title"])}</a></li>' for key in keys)
        contents.append(f"<h2>{escape(title)}</h2><ul>{links}</ul>")
        articles = "".join(_event(document, key) for key in keys)
        chapters.append(f'<h2 id="{escape(service)}">{escape(title)}</h2>{_prose(about.get(service, ""))}{articles}')
    text = (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style>"
        f'<nav><a href="/">Steward 管家</a> · <a href="/docs">REST API</a>{"".join(contents)}</nav>'
        f"<main><h1>Events</h1>{_prose(info['description'])}"
        '<p>For programs: <a href="/asyncapi.json">/asyncapi.json</a> (AsyncAPI 3.0.0), from which this page is made.</p>'
        f"<h2>The envelope</h2>{_fields(document, document['components']['schemas']['CloudEvent'])}"
        f"{''.join(chapters)}</main>\n"
    )
    return text.encode()


def _event(document: dict[str, Any], key: str) -> str:
    channel = document["channels"][key]
    message = document["components"]["messages"][key]
    data = message["payload"]["allOf"][1]["properties"]["data"]
    schema = _resolved(document, data)
    example = orjson.dumps(message["examples"][0]["payload"], option=orjson.OPT_INDENT_2).decode()
    whole = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
    emitters = channel.get("parameters", {}).get("service", {}).get("enum", ())
    facts = [
        ("Routing key", "<br>".join(f"<code>{escape(key)}</code>" for key in _routing_keys(channel["address"], emitters))),
        ("Type", f"<code>{escape(message['name'])}</code>"),
        ("Taken in by", escape(", ".join(_takers(document, key))) or "nobody in Steward; it is there for others"),
    ]
    return (
        f'<article id="{escape(key)}"><h3>{escape(channel["title"])} '
        f'<a class="tag" href="{ADDRESS}#{escape(key)}" aria-label="link to this event">#</a></h3>'
        f"{_prose(message['description'])}"
        f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts)}</dl>"
        f"{_fields(document, schema)}"
        f"<details open><summary>Example</summary><pre><code>{escape(example)}</code></pre></details>"
        f"<details><summary>JSON Schema of <code>data</code></summary><pre><code>{escape(whole)}</code></pre></details></article>"
    )


def _routing_keys(address: str, emitters: list[str]) -> list[str]:
    return [address.replace("{service}", service) for service in emitters] or [address]


def _takers(document: dict[str, Any], key: str) -> list[str]:
    """Services that react to an event; of one that every service emits, whose."""
    reference, found = f"#/channels/{key}", []
    for name, operation in document["operations"].items():
        if operation["action"] == "receive" and operation["channel"]["$ref"] == reference:
            taker, _, rest = name.partition(".receives.")
            found.append(f"{taker} (of {rest.partition('.')[0]})" if key.startswith("chassis.") else taker)
    return found


def _fields(document: dict[str, Any], schema: dict[str, Any]) -> str:
    rows = "".join(_rows(document, schema, 0, ()))
    return f"<table><thead><tr><th>Field<th>Type<th>Meaning</thead><tbody>{rows}</tbody></table>" if rows else ""


def _rows(document: dict[str, Any], schema: dict[str, Any], depth: int, inside: tuple[str, ...]) -> list[str]:
    """A line for each field, those of a message in it below it; a message that contains itself is not opened again."""
    rows = []
    for name, value in schema.get("properties", {}).items():
        kind, reference = _kind(document, value)
        deep = f' class="deep" style="padding-left: {depth * 1.2:.1f}em"' if depth else ""
        rows.append(f"<tr><td{deep}><code>{escape(name)}</code><td>{escape(kind)}<td>{_meaning(value)}</tr>")
        if reference and reference not in inside and depth < 3 and not reference.startswith("google."):
            rows += _rows(document, document["components"]["schemas"][reference], depth + 1, (*inside, reference))
    return rows


def _kind(document: dict[str, Any], schema: dict[str, Any]) -> tuple[str, str]:
    """What a field holds in words, and the name of the schema it refers to, if it does."""
    if "allOf" in schema:
        return _kind(document, schema["allOf"][0])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return ({"google.type.Money": "money", "google.type.Date": "day"}.get(name, "object"), name)
    if schema.get("type") == "array":
        kind, reference = _kind(document, schema["items"])
        return f"list of {kind}", reference
    if "enum" in schema:
        return "word", ""
    if "const" in schema:
        return f'"{schema["const"]}"', ""
    formats = {"date-time": "instant", "uuid": "UUID", "int64": "integer as text"}
    return formats.get(
        schema.get("format", ""),
        {"string": "text", "boolean": "true or false"}.get(schema.get("type", ""), schema.get("type", "any value")),
    ), ""


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _meaning(schema: dict[str, Any]) -> str:
    """What is said of a field, and each word that it may hold with what is said of that."""
    lines = schema.get("description", "").split("\n")
    said = " ".join(line for line in lines if not line.startswith("- "))
    values = schema.get("enum") or schema.get("items", {}).get("enum") or ()
    explained = {match[1]: match[2] for line in lines if (match := re.match(r"- `(\w+)` (.*)", line))}
    words = ("<br>" if explained else " ").join(f"<code>{escape(str(value))}</code> {_words(explained.get(value, ''))}" for value in values)
    if len(values) > MOST_WORDS:
        words = f"<details><summary>{len(values)} words</summary>{words}</details>"
    return "<br>".join(part for part in (_words(said), words) if part)


def _prose(text: str) -> str:
    """A comment as paragraphs."""
    return "".join(f"<p>{_words(part)}</p>" for part in text.strip().split("\n\n") if part)


def _words(text: str) -> str:
    """`code` and **strong** of a comment as HTML."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(text.split()), quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
