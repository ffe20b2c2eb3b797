# SPDX-License-Identifier: Apache-2.0
"""The Content-Security-Policy of a page that is one file.

It lets exactly the script and the style of that page run, told by their hashes,
and lets them talk to nobody but the service.
"""

import base64
import hashlib
import re

from fastapi import responses


def answer(page: str) -> responses.HTMLResponse:
  """A page of HTML with its policy."""
  return responses.HTMLResponse(
      page, headers={"Content-Security-Policy": of_page(page)}
  )


def of_page(page: str) -> str:
  """The policy of a page with its scripts and styles inline."""

  def hashes(tag: str) -> str:
    texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return " ".join(map(_hash, texts)) or "'none'"

  return (
      f"default-src 'none'; script-src {hashes('script')}; style-src "
      f"{hashes('style')}; connect-src 'self'; img-src data:; base-uri 'none'; "
      "form-action 'none'; frame-ancestors 'none'"
  )


def _hash(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"
