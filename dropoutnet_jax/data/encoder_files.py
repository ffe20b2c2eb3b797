# SPDX-License-Identifier: Apache-2.0
"""Fitted encoders in a run folder: features.json and an npz for each side.

The JSON is to be read by people too: settings, numbers, categories and notes.
Arrays and long vocabularies are in features_user.npz and features_item.npz,
without pickle; the JSON names them.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np

from dropoutnet_jax import errors
from dropoutnet_jax.data import files

_FORMAT = 2


def pack(
    fitted: Any, prefix: str, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
  """JSON of a dataclass; arrays among its fields are put into `arrays`."""
  described: dict[str, Any] = {}
  for field in dataclasses.fields(fitted):
    value = getattr(fitted, field.name)
    described[field.name] = value
    if isinstance(value, np.ndarray):
      key = f'{prefix}/{field.name}'
      is_text = value.dtype.kind in 'OU'
      described[field.name] = {
          'array': key,
          'shape': value.shape,
          'text': is_text,
      }
      if is_text:
        # A str array would give all strings the length of the longest.
        text = json.dumps(value.tolist()).encode()
        value = np.frombuffer(text, np.uint8)
      arrays[key] = value
  return described


def unpack(
    described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The fields of the dataclass that `pack` got."""
  fields: dict[str, Any] = {}
  for name, value in described.items():
    if isinstance(value, dict):
      array = arrays[value['array']]
      is_text = value['text']
      fields[name] = (
          np.array(json.loads(array.tobytes()), np.str_) if is_text else array
      )
    else:
      fields[name] = tuple(value) if isinstance(value, list) else value
  return fields


def save(
    folder: str,
    side: str,
    described: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
  """Writes the arrays, then this side's part of features.json.

  Each file is written beside its target and renamed. A checksum of the arrays
  in the JSON gives away a pair of files of which only one was replaced.

  Raises:
    UserError: a file can't be written, or features.json is damaged.
  """
  files.save_arrays(_arrays_path(folder, side), arrays)
  path = _json_path(folder)
  sides = _read(path) if os.path.exists(path) else {}
  sides[side] = {**described, 'checksum': _checksum(arrays)}
  files.write_json(path, {'format': _FORMAT, 'sides': sides})


def load(
    folder: str, side: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What `save` got.

  Raises:
    UserError: a file is missing or damaged, they do not belong together, or
      the folder has no such side.
  """
  path = _json_path(folder)
  sides = _read(path)
  if side not in sides:
    raise errors.UserError(
        f'{path} holds no features of side {side!r}, only of: '
        f'{", ".join(sides) or "none"}. Train again in a new run folder.'
    )
  described = sides[side]
  arrays = files.load_arrays(_arrays_path(folder, side))
  if described.pop('checksum', None) != _checksum(arrays):
    raise errors.UserError(
        f'{path} and {os.path.basename(_arrays_path(folder, side))} do not '
        'belong together: one of them was replaced or damaged. Remove the run '
        'folder and train again.'
    )
  return described, arrays


def sides(folder: str) -> tuple[str, ...]:
  """Names of the sides that features.json holds.

  Raises:
    UserError: it is missing or damaged.
  """
  return tuple(_read(_json_path(folder)))


def _json_path(folder: str) -> str:
  return os.path.join(folder, 'features.json')


def _arrays_path(folder: str, side: str) -> str:
  return os.path.join(folder, f'features_{side}.npz')


def _read(path: str) -> dict[str, Any]:
  """The sides in features.json."""
  try:
    with open(path, encoding='utf-8') as file:
      content = json.load(file)
    if content['format'] != _FORMAT:
      raise errors.UserError(
          f'{path} has format {content["format"]!r}; this version reads format '
          f'{_FORMAT}. Use the version that wrote it, or train again.'
      )
    return dict(content['sides'])
  except OSError as error:
    raise errors.UserError(
        f'{path} cannot be read ({error.strerror}); is this a run folder?'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
        f'{path} is damaged ({error}). Remove the run folder and train again.'
    ) from error


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
  """Names, types, shapes and content of all arrays in 16 hex digits."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = arrays[name]
    digest.update(f'{name} {array.dtype.str} {array.shape} '.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()[:16]
