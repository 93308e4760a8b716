"""The worst-case cost of an image in tokens, from the pixel size in its header.

Source: the provider's vision page, read 2026-11-28. An image costs one token per 28 x 28 pixels, partial ones included.
Images beyond a model's native resolution are scaled down first, to 4784 tokens at most. The older rule, width x height
/ 750, and third-party measurements with models of the generation 5.5 give no more.
"""

from __future__ import annotations

import struct

from farmhand.core import attachments

_PATCH = 28
#: The maximum cost of an image, also used if the header cannot be read.
MAX_TOKENS = 4784
#: Tokens that frame an image, in addition to its patches.
_FRAME_TOKENS = 16


def image_tokens(data: str) -> int:
    """Return the maximum tokens of the image in the base64 text `data`; MAX_TOKENS if its header cannot be read."""
    try:
        width, height = attachments.size(attachments.head(data))
    except (ValueError, struct.error, IndexError):
        return MAX_TOKENS + _FRAME_TOKENS
    patches = -(-width // _PATCH) * -(-height // _PATCH)
    return (min(patches, MAX_TOKENS) or MAX_TOKENS) + _FRAME_TOKENS
