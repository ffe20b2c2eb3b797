# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI description for people, at /docs.

Made here and not by the usual pages, which load their scripts from elsewhere.
"""

from collections.abc import Mapping
import html
import json
from typing import Any

import fastapi

from dropoutnet_jax.serving.service import page_policy

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem;
  margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; } h2 code { font-size: 1.1rem; }
pre { padding: 1rem; overflow: auto; border: 1px solid #8886;
  border-radius: 6px; font-size: .85rem; }
"""
_TOP = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: paths</title><link rel="icon" href="data:,">
<style>{style}</style></head><body><main><h1>{title}: paths</h1>
<p>{description}</p><p>For programs: <a href="openapi.json">openapi.json</a>.
<a href="./">The page</a>. Every refusal is
<code>{{"error": {{"code", "message", "where"}}}}</code>.</p>
"""


def add(app: fastapi.FastAPI) -> None:
  """Adds /docs; the description must be complete."""
  page = render(app.openapi())

  @app.get('/docs', include_in_schema=False)
  async def get_docs() -> fastapi.Response:
    return page_policy.answer(page)


def render(tree: Mapping[str, Any]) -> str:
  """A page of all paths, their bodies and their answers."""
  parts = [
      _TOP.format(
          title=html.escape(tree['info']['title']),
          style=_STYLE,
          description=html.escape(tree['info'].get('description', '')),
      )
  ]
  schemas = tree['components']['schemas']
  for path, methods in tree['paths'].items():
    for method, operation in methods.items():
      parts.append(_operation(path, method, operation, schemas))
  return ''.join([*parts, '</main></body></html>'])


def _operation(
    path: str,
    method: str,
    operation: Mapping[str, Any],
    schemas: Mapping[str, Any],
) -> str:
  """One section: what it does, what it takes, what it answers."""
  what = [operation.get('summary', ''), operation.get('description', '')]
  found = [
      f'<h2><code>{method.upper()} {html.escape(path)}</code></h2>',
      *(f'<p>{html.escape(text)}</p>' for text in what if text),
  ]
  body = operation.get('requestBody')
  if body:
    found.append(_block('Body', _content(body), schemas))
  for status, answer in operation['responses'].items():
    if status == '200' and 'content' in answer:
      found.append(_block('Answer', _content(answer), schemas))
  others = [
      f'{status} {answer["description"]}'
      for status, answer in operation['responses'].items()
      if status != '200'
  ]
  if others:
    found.append(f'<p>Otherwise: {html.escape("; ".join(others))}.</p>')
  return '\n'.join(found)


def _content(part: Mapping[str, Any]) -> Any:
  return next(iter(part['content'].values())).get('schema', {})


def _block(title: str, schema: Any, schemas: Mapping[str, Any]) -> str:
  shown = json.dumps(_shape(schema, schemas), indent=1)
  return f'<p>{title}:</p><pre tabindex="0">{html.escape(shown)}</pre>'


def _shape(schema: Any, schemas: Mapping[str, Any]) -> Any:
  """A schema as JSON that looks like what it describes."""
  if '$ref' in schema:
    schema = schemas[schema['$ref'].rsplit('/', 1)[1]]
  if 'anyOf' in schema:
    found = [_shape(one, schemas) for one in schema['anyOf']]
    if all(isinstance(one, str) for one in found):
      return ' or '.join(dict.fromkeys(found))
    return next(one for one in found if not isinstance(one, str))
  if schema.get('type') == 'array':
    return [_shape(schema.get('items', {}), schemas)]
  if 'properties' in schema:
    wanted = schema.get('required', ())
    return {
        name + ('' if name in wanted else '?'): _shape(one, schemas)
        for name, one in schema['properties'].items()
    }
  if 'enum' in schema:
    return ' or '.join(map(repr, schema['enum']))
  kind = schema.get('type', 'anything')
  default = f' = {schema["default"]}' if 'default' in schema else ''
  return f'{kind}{default}'
