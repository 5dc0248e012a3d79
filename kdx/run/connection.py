"""Whether a server answers: without a connection, clients of the Hugging Face hub retry for a minute."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request

SECONDS = 3.0  # until a server counts as unreachable


def answers(url: str) -> bool:
    """Return whether a server answers a request within a few seconds, whatever it answers."""
    outcome: list[bool] = []
    # Looking up a name has no timeout, so it happens in a thread.
    thread = threading.Thread(target=lambda: outcome.append(_answers(url)), daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return bool(outcome and outcome[0])


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        return error.code < 500  # else a proxy without connection
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the hub's client has its own certificates
    except (OSError, ValueError):
        return False
    return True
