"""Where the newest states of a build are: in a file of its folder, or on a Redis server (NEXTBEST_ONLINE_URL)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from features.errors import InputError, NextbestError, NotBuilt, StoreUnavailable
from features.home import Build
from features.packed import OnlineStates, PackedStates


def open_states(build: Build, url: str = "") -> PackedStates:
    """The newest states of a build's customers and its market.

    url: of a Redis server; empty: the build's file. Raises NotBuilt where the build was never brought there whole,
    ArtefactError where it was written for other views, StoreUnavailable where the server does not answer.
    """
    if not url:
        return OnlineStates(build.online_path, build.views)
    from features.redis_states import RedisStates

    states = RedisStates(url, prefix(build), build.views)
    if not states.loaded:
        raise NotBuilt(
            "the online store holds these features only in part; finish with `nextbest features build DIR` and this "
            "NEXTBEST_ONLINE_URL"
        )
    return states


def holds(build: Build, url: str = "") -> bool:
    """Whether the build was brought there whole. Raises StoreUnavailable where the server does not answer."""
    try:
        open_states(build, url)
    except StoreUnavailable:
        raise
    except NextbestError as error:
        if type(error) is InputError:  # a server that is not fit for it
            raise
        return False
    return True


def keep_only(builds: Path, kept: Collection[str], url: str) -> None:
    """Remove from the server the features of a home's builds (folders in `builds`) other than those `kept`.

    A server that still reads one of them fails from then on; it never takes its customers for unknown ones.
    """
    from features.redis_states import remove

    for folder in sorted(builds.iterdir()):
        if folder.name not in kept:
            remove(url, _prefix(folder))


def prefix(build: Build) -> str:
    """What the keys of a build begin with on a server: builds lie side by side there."""
    return _prefix(build.folder)


def _prefix(folder: Path) -> str:
    return f"nextbest:{folder.name}:"
