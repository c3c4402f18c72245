"""A verdict in a notebook: its evidence as a page of its own, in a frame.

Importing this is what tells ``Verdict``, which stands below and imports nothing from here; the package does
so when it is first asked for its ``Detector``.
"""

from __future__ import annotations

from html import escape

from retrieval_detect.verdicts import Verdict

_HEIGHT = 640
"""Of the frame, in pixels; what is longer is scrolled."""


def in_frame(verdict: Verdict) -> str:
    """An ``<iframe>`` that holds all it shows: no script runs in it, and its style stays inside.

    Pictures are read from files where these still are what was judged or stored.
    """
    from retrieval_detect.report.html.glance import glance
    from retrieval_detect.report.html.write import glance_page

    page = escape(glance_page(glance(verdict)), quote=True)
    return (
        f'<iframe sandbox srcdoc="{page}" width="100%" height="{_HEIGHT}" style="border:0" '
        f'title="{escape(verdict.input, quote=True)}"></iframe>'
    )


Verdict.page = in_frame
