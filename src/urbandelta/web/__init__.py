"""A local web application over one area: map, months, history of each pixel, events. It writes nothing."""

from urbandelta.web.app import create_app
from urbandelta.web.source import WebSource, find_source

__all__ = ["WebSource", "create_app", "find_source"]
