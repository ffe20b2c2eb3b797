# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI description: what FastAPI sees, and what the run adds to it.

The columns of content differ from run to run, so that their schemas are put in
here; and what the guard answers, which FastAPI does not see.
"""

from collections.abc import Mapping
from typing import Any

import fastapi

from dropoutnet_jax.serving.service import json_columns
from dropoutnet_jax.serving.service import wire

DESCRIPTION = (
    'Recommendations of a trained DropoutNet: for known users, for new ones by '
    'their content, for mere histories; of known items and of those that came '
    'a second ago.'
)
_JSON = 'application/json'
LINES = 'application/x-ndjson'
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {'model': wire.Error, 'description': what}
    for status, what in (
        (400, 'No JSON'),
        (401, 'The key is missing or wrong'),
        (404, 'No such thing'),
        (413, 'Too large'),
        (422, 'JSON that asks for nothing'),
        (503, 'Starting, stopping or busy: see Retry-After'),
    )
}


def _mend_media_types(paths: dict[str, Any]) -> None:
  """Answers that are text; their refusals are JSON like all others."""
  for path, kind in (('/shown', LINES), ('/metrics', 'text/plain')):
    for status, answer in paths[path]['get']['responses'].items():
      content = answer.get('content', {})
      schema = content.pop('text/plain', None) or content.pop(_JSON, None)
      if status == '200':
        answer['content'] = {kind: {'schema': {'type': 'string'}}}
      elif schema is not None:
        answer['content'] = {_JSON: schema}


def describe(
    app: fastapi.FastAPI, types: Mapping[str, json_columns.Types], has_key: bool
) -> None:
  """Completes what `app.openapi()` gives; all paths must be there."""
  tree = app.openapi()
  # Otherwise it would be made anew, without what follows.
  app.openapi = lambda: tree  # type: ignore[method-assign]
  schemas = tree['components']['schemas']
  for side, name in (('user', 'UserContent'), ('item', 'ItemContent')):
    what = schemas[name]['description']
    schemas[name] = json_columns.json_schema(types[side])
    schemas[name] |= {'title': name, 'description': what}
  for unused in ('HTTPValidationError', 'ValidationError'):
    schemas.pop(unused, None)
  _mend_media_types(tree['paths'])
  ready = tree['paths']['/health']['get']['responses']
  ready['503'] = dict(ready['200'], description='Starting or stopping')
  if has_key:
    tree['components']['securitySchemes'] = {
        'key': {'type': 'apiKey', 'in': 'header', 'name': 'X-API-Key'}
    }
    tree['security'] = [{'key': []}]
    ready_path = tree['paths']['/health']['get']
    ready_path['security'] = []
