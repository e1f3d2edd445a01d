"""Hooks of MkDocs: the command line's reference, and links from docs/ to the rest of the checkout.

On a git host `../benchmarks/README.md` is a link to a file. Here every file that a page links to outside of docs/
becomes a page under repository/, so that the site needs no network and MkDocs checks its links and anchors, too.
"""

import os
import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = "repository/"
"""Folder of the site for files outside of docs/."""
COMMANDS = "<!-- commands -->"
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^()\s#:]+)((?:#[^()\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside of docs/ that a page links to, directly or over another such page."""
    waiting = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    while waiting:
        path, text = waiting.pop()
        for linked in sorted(links(path, text)):
            uri = site_uri(linked)
            if linked.startswith("docs/") or files.get_file_from_path(uri):
                continue
            content = page_of(linked)
            files.append(File.generated(config, uri, content=content))
            if linked.endswith(".md"):
                waiting.append((linked, content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the site; the commands' help in the place of COMMANDS."""
    uri = page.file.src_uri
    path = uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else f"docs/{uri}"
    if not (ROOT / path).is_file():
        return markdown  # a page that shows a file

    def moved(match: re.Match[str]) -> str:
        target = target_of(path, match[2])
        return f"{match[1]}{relpath(site_uri(target), dirname(uri) or '.')}{match[3]}"

    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts).replace(COMMANDS, command_line())


def links(path: str, text: str) -> set[str]:
    """Files of the checkout that a page links to, by their paths in the checkout."""
    return {target_of(path, match[2]) for part in FENCED.split(text)[::2] for match in LINK.finditer(part)}


def target_of(path: str, link: str) -> str:
    """The file that a link leads to; of a folder its README.md, as git hosts show it."""
    target = normpath(f"{dirname(path)}/{link}".lstrip("/"))
    if (ROOT / target).is_dir():
        target = f"{target}/README.md"
    if target.startswith("..") or not (ROOT / target).is_file():
        raise PluginError(f"{path}: the link '{link}' leads to no file of the checkout")
    return target


def site_uri(path: str) -> str:
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return OUTSIDE + (path if path.endswith(".md") else f"{path}.md")


def page_of(path: str) -> str:
    """A Markdown file as it is; of any other file a page that shows it."""
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    return f"# {os.path.basename(path)}\n\n`{path}`\n\n````{Path(path).suffix[1:] or 'text'}\n{text}````\n"


def command_line() -> str:
    """`--help` of every command, made from the commands themselves."""
    from nashc.cli import cli  # noqa: PLC0415  only one page needs it

    return "\n\n".join(sections(cli, click.Context(cli, info_name="nashc", terminal_width=100)))


def sections(command: click.Command, context: click.Context) -> list[str]:
    """Heading and help of a command and of all below it."""
    found = [f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                found += sections(below, click.Context(below, info_name=name, parent=context))
    return found
