# SPDX-License-Identifier: Apache-2.0
"""data_config and the paths of files as settings of `data.tables`.

EasyRec reads one flat table, each row a user, an item and a label; that is
`data.tables.samples`. What it has no word for is which columns are the ids.
"""

from collections.abc import Sequence
import re
from typing import NamedTuple

from dropoutnet_jax import errors
from dropoutnet_jax.easyrec import draft as draft_lib
from dropoutnet_jax.easyrec import ledger

_SAMPLERS = (
    'negative_sampler',
    'negative_sampler_v2',
    'hard_negative_sampler',
    'hard_negative_sampler_v2',
    'negative_sampler_in_memory',
)
_FORMATS = {
    'CSVInput': 'csv',
    'CSVInputV2': 'csv',
    'CSVInputEx': 'csv',
    'DummyInput': 'csv',
    'ParquetInput': 'parquet',
    'ParquetInputV2': 'parquet',
    'ParquetInputV3': 'parquet',
}
# Columns that are read under these names, whatever a file means by them.
_ROLES = ('label', 'weight', 'time', 'session_id')
_PIPELINE = (
    'prefetch_size',
    'num_parallel_calls',
    'shard',
    'file_shard',
    'pai_worker_queue',
    'pai_worker_slice_num',
    'chief_redundant',
    'eval_batch_size',
    'drop_remainder',
)


class Columns(NamedTuple):
  """What the columns of the table are used for.

  Attributes:
    user_id: column of the user's id.
    item_id: of the item's.
    user: columns that features of users read, without the id.
    item: likewise.
    lists: names by field of TablesConfig, such as 'tag_columns'.
    separator: within lists; '' where there are none.
    weight_separator: between a tag and its weight.
    session: column of sessions, or ''.
  """

  user_id: str
  item_id: str
  user: tuple[str, ...]
  item: tuple[str, ...]
  lists: dict[str, tuple[str, ...]]
  separator: str
  weight_separator: str
  session: str = ''


def input_names(root: ledger.Node, path: str) -> tuple[str, ...]:
  """Names of the columns, in the order of the files.

  Raises:
    UserError: there is no data_config, it has no columns, or one twice.
  """
  if not root.has('data_config'):
    raise errors.UserError(
        f'{path} has no data_config, so that nobody knows the columns of the '
        'files. Give the whole pipeline.config, not a part of it.'
    )
  data = root.node('data_config')
  names: list[str] = []
  for field in data.nodes('input_fields'):
    name = field.get('input_name')
    match = re.fullmatch(r'(.*)\[(\d+)-(\d+)\](.*)', name)
    if data.get('auto_expand_input_fields') and match:
      numbers = range(int(match[2]), int(match[3]) + 1)
      names += [f'{match[1]}{number}{match[4]}' for number in numbers]
    else:
      names.append(name)
    _settle_field(field)
  if not names:
    raise errors.UserError(
        f'{path}: data_config has no input_fields; they name the columns of '
        'the files. Add one for each column, in their order.'
    )
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated or not all(names):
    raise errors.UserError(
        f'{path}: data_config.input_fields has '
        + (f'{repeated[0]!r} twice' if all(names) else 'one without input_name')
        + '; give every column a name of its own.'
    )
  data.take('auto_expand_input_fields', note='names are written out')
  return tuple(names)


def _settle_field(field: ledger.Node) -> None:
  field.take('input_name', note='a column (data.tables.header)')
  field.take('input_type', note='types of columns follow from their values')
  field.change(
      'default_val',
      note='what is missing stays missing: nothing is put in its place',
  )
  field.take('input_dim', 'input_shape', note='lists have any length')
  field.refuse(
      'user_define_fn',
      'user_define_fn_path',
      'user_define_fn_res_type',
      note="functions of one's own are not run; put the result into the file",
  )
  field.refuse('ignore_val', note='leave such values empty in the file')


def find_ids(
    root: ledger.Node,
    names: Sequence[str],
    guesses: dict[str, str],
    given: dict[str, str | None],
    path: str,
) -> tuple[dict[str, str], dict[str, str]]:
  """Columns of the ids by side, and the comment on each that is a guess.

  Args:
    root: of the configuration.
    names: of all columns.
    guesses: for each side a feature that looks like its id; may lack one.
    given: what the command line names.
    path: of the configuration, for messages.

  Raises:
    UserError: if a name is no column, both are one, or there is none.
  """
  data = root.node('data_config')
  stated = {}
  for sampler in _SAMPLERS:
    if data.has(sampler):
      node = data.node(sampler)
      stated['item'] = node.get('item_id_field')
      if sampler.endswith('_v2') or sampler.startswith('hard'):
        stated['user'] = node.get('user_id_field')
  for metric in root.node('eval_config').nodes('metrics_set'):
    if metric.has('gauc'):
      stated['user'] = metric.node('gauc').get('uid_field')
  found, comments = {}, {}
  for side in ('user', 'item'):
    flag = given[side]
    if flag is not None and flag not in names:
      raise errors.UserError(
          f'--{side}_id={flag}: {path} has no such input field.'
          + errors.did_you_mean(flag, names)
          + f' There are {errors.listed(list(names), 20)}.'
      )
    usual = (f'{side}_id', f'{side}id', f'{side[0]}id')
    plain = next((name for name in names if name.lower() in usual), '')
    found[side] = flag or stated.get(side) or plain or guesses.get(side, '')
    if found[side] not in names:
      raise errors.UserError(
          f'{path} does not say which column is the id of {side}s; EasyRec '
          f'needs none. Name it: --{side}_id=COLUMN, one of '
          f'{errors.listed(list(names), 20)}.'
      )
    if not (flag or side in stated or plain):
      comments[side] = (
          f'A guess: EasyRec knows no ids. Else --{side}_id=COLUMN.'
      )
  if found['user'] == found['item']:
    raise errors.UserError(
        f'{path}: {found["user"]!r} would be the id of users and of items. '
        'Name both: --user_id=COLUMN --item_id=COLUMN.'
    )
  return found, comments


def metric_sessions(root: ledger.Node) -> tuple[str, ...]:
  """Columns of sessions that metrics name."""
  metrics = root.node('eval_config').nodes('metrics_set')
  return tuple(
      metric.node('session_auc').get('session_id_field')
      for metric in metrics
      if metric.has('session_auc')
  )


def one_session(
    sessions: Sequence[str], names: Sequence[str], path: str
) -> str:
  """The column of sessions, or ''.

  Raises:
    UserError: if there are several, or it is no column.
  """
  found = sorted(set(sessions) - {''})
  if len(found) > 1:
    raise errors.UserError(
        f'{path} names the sessions {found[0]!r} and {found[1]!r}; one column '
        'says what was shown together.'
    )
  for name in found:
    if name not in names:
      raise errors.UserError(
          f'{path} names the session {name!r}, which is no input field.'
          + errors.did_you_mean(name, names)
      )
  return found[0] if found else ''


def convert(
    root: ledger.Node,
    draft: draft_lib.Draft,
    names: Sequence[str],
    columns: Columns,
    comments: dict[str, str],
    path: str,
) -> None:
  """Settings of the files and of their columns.

  Raises:
    UserError: if no file or no label is named.
  """
  data = root.node('data_config')
  _set_paths(root, draft, path)
  _set_format(data, draft)
  draft.set('data.name', 'tables')
  if not data.get('with_header'):
    draft.set('data.tables.header', tuple(names))
  data.take('with_header', note='data.tables.header is for files without one')
  draft.set('data.tables.user_id', columns.user_id, comments.get('user', ''))
  draft.set('data.tables.item_id', columns.item_id, comments.get('item', ''))
  note = 'The latest row of a user or item describes it; EasyRec reads each '
  note += 'row by itself.'
  draft.set('data.tables.user_columns', columns.user, note)
  draft.set('data.tables.item_columns', columns.item)
  for field, listed in columns.lists.items():
    draft.set(f'data.tables.{field}', listed)
  if columns.separator:
    draft.set('data.tables.list_separator', columns.separator)
  draft.set('data.tables.tag_weight_separator', columns.weight_separator)
  roles = _set_roles(data, draft, names, path)
  draft.set('data.tables.session_id', columns.session or 'session_id')
  roles['session_id'] = columns.session
  for role in _ROLES:
    plain = [''.join(c for c in name.lower() if c.isalnum()) for name in names]
    if not roles.get(role) and role.replace('_', '') in plain:
      comment = f'The column {role!r} is none here.'
      draft.set(f'data.tables.{role}', '', comment)
  _settle_rest(data)


def _set_paths(root: ledger.Node, draft: draft_lib.Draft, path: str) -> None:
  train = root.which('train')
  if not train or not root.get(train):
    raise errors.UserError(
        f'{path} names no file to train on. Set train_input_path to a file, a '
        'folder or a glob; tables of ODPS, Hive, Kafka or DataHub have to be '
        'written as files first.'
    )
  value = root.get(train)
  if ',' in value:
    value = value.split(',')[0]
    root.refuse(
        train,
        note='several files are read as a folder or a glob; put them into one',
    )
    draft.comments['data.tables.samples'] = 'The first of several files.'
  root.take(train, note='data.tables.samples')
  draft.set('data.tables.samples', value)
  evaluation = root.which('eval')
  if evaluation:
    root.change(
        evaluation,
        note='not read: whole users and items, and some pairs of others, are '
        'held out of the training file (data.cold_item_share and so on), since '
        'rows of known users and items say nothing of new ones',
    )
  root.change('model_dir', note='--workdir names the folder of a run')
  root.refuse('fg_json_path', note="run EasyRec's tool that writes it out")


def _set_format(data: ledger.Node, draft: draft_lib.Draft) -> None:
  kind = data.get('input_type') if data.has('input_type') else 'CSVInput'
  known = _FORMATS.get(kind)
  draft.set('data.tables.format', known or 'csv')
  if known:
    note = f'data.tables.format={known!r}'
    if kind in ('CSVInput', 'CSVInputV2'):
      note += '; a value in double quotes is read without them'
    data.take('input_type', note=note)
  else:
    data.refuse(
        'input_type', note='write the table as CSV or Parquet; CSV is assumed'
    )
  separator = data.get('separator')
  if known == 'parquet':
    data.take('separator', note='Parquet has none')
  elif len(separator) == 1 and separator.isascii() and separator not in '"\r\n':
    data.take('separator', note='data.tables.separator')
    if separator != ',':
      draft.set('data.tables.separator', separator)
  else:
    data.refuse('separator', note='use one character; a comma is assumed')
  data.change(
      'data_compression_type',
      note='the ending of a file says how it is compressed',
  )


def _set_roles(
    data: ledger.Node,
    draft: draft_lib.Draft,
    names: Sequence[str],
    path: str,
) -> dict[str, str]:
  """Label and weight; returns the column of each."""
  labels = data.get('label_fields')
  weight = data.get('sample_weight')
  if not labels:
    raise errors.UserError(
        f'{path}: data_config has no label_fields; name the column that says '
        'what was clicked.'
    )
  for field, name in (('label_fields', labels[0]), ('sample_weight', weight)):
    if name and name not in names:
      raise errors.UserError(
          f'{path}: data_config.{field} names {name!r}, which is no input '
          f'field.{errors.did_you_mean(name, names)}'
      )
  draft.set('data.tables.label', labels[0])
  note = 'data.tables.label'
  if len(labels) > 1:
    note += '; DropoutNet reads the first alone, in EasyRec as well'
  data.take('label_fields', note=note)
  if weight:
    draft.set('data.tables.weight', weight)
    data.take('sample_weight', note='data.tables.weight')
  return {'label': labels[0], 'weight': weight}


def _settle_rest(data: ledger.Node) -> None:
  data.refuse(
      'label_sep', 'label_dim', note='a label is one number in its column'
  )
  data.refuse('extra_label_func', note='put the result into the file')
  data.change(
      'shuffle',
      'shuffle_buffer_size',
      note='rows are always shuffled, all of them (objective.sampling)',
  )
  data.change(*_PIPELINE, note='reading needs no such setting')
  data.change(
      'num_epochs',
      note='train.num_steps alone says how long; epochs follow each other',
  )
  data.refuse(
      'selected_cols', 'selected_col_types', note='files hold all input_fields'
  )
  data.refuse('ignore_error', note='mend the file; every message has its line')
  for sampler in _SAMPLERS:
    if data.has(sampler):
      node = data.node(sampler)
      fields = [name for name in ('item_id_field', 'user_id_field')]
      for field in fields:
        if sampler in ('negative_sampler', 'negative_sampler_in_memory'):
          if field == 'user_id_field':
            continue
        node.take(field, note='the id (data.tables.user_id, item_id)')
      node.refuse(
          note='DropoutNet of EasyRec cannot use it; objective.num_sampled '
          'draws negatives from the items of the run'
      )
