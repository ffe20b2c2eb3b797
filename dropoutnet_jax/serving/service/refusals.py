# SPDX-License-Identifier: Apache-2.0
"""What a client is told when something is wrong, always in one shape.

  {"error": {"code": "unknown_user", "message": "...", "where": "users[0].id"}}

`code` is for programs, `message` says what was found and what to do, `where`
is the place in the request, '' where it is the whole of it.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import responses

# One word for each status that starlette itself answers with.
_CODES = {
    400: 'bad_request',
    401: 'unauthorized',
    404: 'not_found',
    405: 'method_not_allowed',
    413: 'too_large',
    422: 'invalid',
    500: 'internal',
    503: 'unavailable',
}


# What pydantic calls a body that is no object, or is missing.
_NO_OBJECT = ('model_attributes_type', 'model_type', 'dict_type', 'missing')


class Refusal(Exception):
  """A request that is not served.

  Attributes:
    status: of HTTP.
    code: one word.
    where: the place in the request, or ''.
    headers: of the answer.
  """

  def __init__(
      self,
      message: str,
      *,
      status: int = 422,
      code: str = '',
      where: str = '',
      headers: Mapping[str, str] | None = None,
  ):
    super().__init__(message)
    self.status, self.where, self.headers = status, where, headers
    self.code = code or code_of(status)

  def within(self, place: str) -> 'Refusal':
    """The same, found further inside a request: 'users[2]'."""
    where = f'{place}.{self.where}' if self.where else place
    return Refusal(
        str(self),
        status=self.status,
        code=self.code,
        where=where,
        headers=self.headers,
    )

  def answer(self) -> responses.JSONResponse:
    """As JSON."""
    return responses.JSONResponse(
        body(self.code, str(self), self.where),
        self.status,
        dict(self.headers or {}),
    )


def body(code: str, message: str, where: str = '') -> dict[str, Any]:
  """The JSON of every refusal."""
  return {'error': {'code': code, 'message': message, 'where': where}}


def code_of(status: int) -> str:
  """One word for a status."""
  return _CODES.get(status, 'refused')


def of_validation(found: Mapping[str, Any]) -> Refusal:
  """Of the first thing that pydantic found: its place and what it says."""
  where = ''
  for name in found['loc'][1:]:
    if isinstance(name, int):
      where += f'[{name}]'
    else:
      where += f'.{name}' if where else name
  if found['type'] == 'json_invalid':
    return Refusal(
        'The body is no JSON; send an object such as {"users": [{"id": 1}]} '
        'with Content-Type: application/json.',
        status=400,
    )
  message = str(found['msg']).removeprefix('Value error, ').rstrip('.')
  if found['type'] in _NO_OBJECT and not where:
    message = 'send an object of JSON, with Content-Type: application/json'
  return Refusal(f'{where or "The body"}: {message}.', where=where)
