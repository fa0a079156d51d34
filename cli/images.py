"""`wherry image`: build from a Containerfile with buildah, load archives into the nodes, list what is there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from cli.building import build_archive
from cli.cluster import Cluster, on_cluster
from cli.loading import images_path, load_archive, read_archive
from cli.problems import Problem

RECIPES = ("Containerfile", "Dockerfile")


@click.group("image")
def image_command() -> None:
    """Build, load and list images."""


@image_command.command("build")
@click.option("-t", "--tag", required=True, help="Name of the image: localhost/web:1.")
@click.option("-f", "--file", "recipe", type=click.Path(path_type=Path), help="Default Containerfile or Dockerfile.")
@click.option("--node", help="Load it into this node only; default all.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def build(tag: str, directory: Path, recipe: Path | None, node: str | None) -> None:
    """Build DIRECTORY's Containerfile (or Dockerfile) and load the image into the nodes."""
    chosen = recipe or next((directory / name for name in RECIPES if (directory / name).exists()), None)
    if chosen is None or not chosen.exists():
        raise Problem(f"{recipe or directory}: no {' or '.join(RECIPES)} there")
    with tempfile.TemporaryDirectory(prefix="wherry-build-") as scratch:
        archive = read_archive(build_archive(tag, chosen, directory, Path(scratch)))
        on_cluster(lambda cluster: load_archive(cluster, archive, node))


@image_command.command("load")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--node", help="Load it into this node only; default all.")
def load(archive: Path, node: str | None) -> None:
    """Load images from an archive of `docker save` or `buildah push`."""
    on_cluster(lambda cluster: load_archive(cluster, read_archive(archive), node))


@image_command.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Every image that no container uses, named or not.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--node", help="On this node only; default all.")
def prune(everything: bool, force: bool, node: str | None) -> None:
    """Remove images without a name, with -a all that no container uses."""
    what = "every image that no container uses" if everything else "images without a name that no container uses"
    if not force:
        click.confirm(f"This removes {what}. Go on?", abort=True)

    async def remove(cluster: Cluster) -> None:
        from cli.volumes import ready_nodes

        freed = 0
        for each in [node] if node else await ready_nodes(cluster):
            reply = await cluster.client.request("DELETE", images_path(each), {"all": "true"} if everything else {})
            for image in reply.json()["images"]:
                freed += image["sizeBytes"]
                click.echo(f"{image['names'][0]} removed from {each}")
        click.echo(f"Freed {_size(freed)}.")

    on_cluster(remove)


@image_command.command("ls")
def ls() -> None:
    """List the images that each node holds."""

    async def show(cluster: Cluster) -> None:
        from cli.output import render_table
        from cli.volumes import ready_nodes

        rows: list[tuple[Any, ...]] = []
        for node in await ready_nodes(cluster):
            reply = await cluster.client.request("GET", images_path(node))
            rows += [(name, node, _size(i["sizeBytes"])) for i in reply.json()["images"] for name in i["names"]]
        click.echo(render_table(("IMAGE", "NODE", "SIZE"), sorted(rows)))

    on_cluster(show)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}GB"
