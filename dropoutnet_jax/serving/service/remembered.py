# SPDX-License-Identifier: Apache-2.0
"""What was shown and what came of it, as beliefs of new items want it.

Every place of every slate that the log has is an impression, without a click
until an interaction of that user with that item comes; but not what users saw
who have no id. Beliefs are a function of the log, so that they are there after
a restart, as far back as it goes. What they see of users is kept beside it.
Where it is not known, of places that were shown before the run had a prior or
by another checkpoint, the level learns and no taste. For the model's thread.
"""

from collections.abc import Hashable, Iterable, Sequence
import hashlib

import numpy as np

from dropoutnet_jax.exploring import observed as observed_lib
from dropoutnet_jax.serving import believer as believer_lib
from dropoutnet_jax.serving.service import asks
from dropoutnet_jax.serving.service import engine as engine_lib
from dropoutnet_jax.serving.service import state_file

_PAGE = 10_000  # places of the log at a time
_TYPE = '<f4'  # of inputs in the file


class Remembered:
  """The log of a service as impressions.

  Attributes:
    is_ready: whether all of the log is in, with a belief of each item.
  """

  def __init__(
      self,
      engine: engine_lib.Engine,
      state: state_file.StateFile,
      believer: believer_lib.Believer,
  ):
    """Reads nothing yet, unless the run has a prior."""
    self._engine, self._state, self._believer = engine, state, believer
    self._observed: observed_lib.Observed | None = None
    self.is_ready = self._is_whole = False  # the log has been read to its end
    self._before = 0  # the log's number before the first impression
    self._read_so_far = 0  # places from there on
    if believer.is_fitted():
      while self.read_on():
        pass

  def read_on(self) -> bool:
    """Takes in a page of the log, or makes some beliefs; is anything left?

    Whoever takes turns with others calls it until all is done; what is shown
    and told of in between is not missed.
    """
    if self._observed is not None and self._is_whole:
      self.is_ready = self.is_ready or not self._observed.make_some()
      return not self.is_ready
    if self._observed is None:
      self._begin()
    assert self._observed is not None
    after = self._before + self._read_so_far
    rows = self._state.shown(after, _PAGE)
    if rows and rows[0][0] != after + 1:  # what was next is forgotten
      self._begin()
      self._before = rows[0][0] - 1
    if not rows:
      self._is_whole = True
      self._observed.keep(self._state.kept)
      return True
    blobs = self._state.inputs(rows[0][0], rows[-1][0])
    self._observed.add(
        self._names([row for _, row, _ in rows]),
        self._read([blobs.get(number) for number, *_ in rows]),
        np.array([row.score for _, row, _ in rows]),
        np.array([liked for *_, liked in rows]),
    )
    self._read_so_far = rows[-1][0] - self._before
    return True

  def _begin(self) -> None:
    """Reads from the beginning of the log."""
    self._observed = observed_lib.Observed(self._believer.prior)
    directions = self._believer.prior.directions
    self._state.use_basis(hashlib.sha256(directions.tobytes()).hexdigest())
    self._before = self._read_so_far = 0

  def observed(self) -> observed_lib.Observed:
    """All that is kept; makes the prior where nobody has."""
    while not self._is_whole:
      self.read_on()
    assert self._observed is not None
    return self._observed

  def inputs(self, users: Sequence[asks.User]) -> np.ndarray | None:
    """What beliefs see of N users: float32 [N, q]; None until there are any."""
    if not self._is_whole:
      return None
    whole = engine_lib.filled_up(users, asks.User())
    found = self._believer.inputs(self._engine.rows.of_users(whole))
    return found[: len(users)].astype(np.float32)

  def add(
      self, rows: Sequence[state_file.Shown], inputs: np.ndarray | None
  ) -> None:
    """Takes in N places, in the order of the log, of which [N, q] is known."""
    if self._observed is None or not self._is_whole:
      return
    if inputs is None:
      inputs = self._read([None] * len(rows))
    scores = np.array([row.score for row in rows])
    self._observed.add(self._names(rows), inputs, scores)
    self._observed.keep(self._state.kept)

  def tell(self, pairs: Iterable[asks.Interaction]) -> None:
    """Clicks have come, or were taken back; the state has them."""
    if self._observed is None:
      return
    for pair in pairs:
      for number, liked in self._state.rewards(pair.user, pair.item):
        self._observed.set_click(number - self._before, liked)

  def _names(self, rows: Sequence[state_file.Shown]) -> list[Hashable]:
    """Of new items; of others None. Who has no id can tell of no click."""
    part_of = self._engine.catalogue.part_of

    def name(row: state_file.Shown) -> Hashable:
      if row.user is None:
        return observed_lib.IGNORED
      return row.item if part_of(row.item) == 'new' else None

    return [name(row) for row in rows]

  def _read(self, blobs: Sequence[bytes | None]) -> np.ndarray:
    """Inputs float32 [N, q]; 0 where there are none."""
    found = np.zeros((len(blobs), self._believer.prior.width - 1), np.float32)
    for row, blob in zip(found, blobs):
      if blob is not None and len(blob) == row.nbytes:
        row[:] = np.frombuffer(blob, _TYPE)
    return found


def as_blobs(inputs: np.ndarray | None) -> list[bytes] | None:
  """What the state file keeps of inputs [N, q]."""
  if inputs is None:
    return None
  return [row.tobytes() for row in inputs.astype(_TYPE)]
