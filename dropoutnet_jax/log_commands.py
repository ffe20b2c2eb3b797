# SPDX-License-Identifier: Apache-2.0
"""`run.py evaluate` with a log of what somebody was shown."""

import json
import os
from typing import Any

from dropoutnet_jax import commands
from dropoutnet_jax import errors
from dropoutnet_jax import parallel
from dropoutnet_jax.data import files
from dropoutnet_jax.data import problem as problem_lib
from dropoutnet_jax.exploring import log_value
from dropoutnet_jax.run_report import pages
from dropoutnet_jax.serving import explorer as explorer_lib
from dropoutnet_jax.serving import log_target
from dropoutnet_jax.serving import policy_flags
from dropoutnet_jax.serving import recommender
from dropoutnet_jax.training import run_folder


def evaluate(
    workdir: str,
    against: str | None = None,
    logged: str | None = None,
    clip: float | None = None,
    policy: str | None = None,
    **numbers: Any,
) -> dict[str, Any]:
  """`commands.evaluate`; with a log what the lists of the run would be worth.

  Args:
    workdir: the run folder.
    against: another one, for `commands.evaluate`.
    logged: file of slates with propensities and rewards; None for no log.
    clip: the largest weight of a place; None for none.
    policy: kind of the policy that is judged; None judges lists.
    **numbers: of the policy, see `policy_flags`.

  Returns:
    What results.json holds; with a log what off_policy.json holds.

  Raises:
    UserError: for what is wrong with the folder, the log or the flags, or if
      the folder can't be written (the table has been printed then).
  """
  given = {'clip': clip, 'policy': policy, **numbers}
  beside = [name for name, value in given.items() if value is not None]
  if logged is None and beside:
    raise errors.UserError(
        f'--{beside[0]} is read beside --logged alone; leave it out.'
    )
  if logged is None:
    return commands.evaluate(workdir, against)
  if against is not None:
    raise errors.UserError(
        '--logged and --against are two evaluations; name one of them.'
    )
  if not logged:
    raise errors.UserError('--logged is empty; name a file.')
  plan = None
  if {*beside} - {'clip'}:
    plan = policy_flags.plan(
        policy, dict.fromkeys(policy_flags.NAMES) | numbers
    )
    if parallel.which_process()[1] > 1:
      raise errors.UserError(
          '--policy is judged by one process; run evaluate --logged in one.'
      )
  cfg = run_folder.load_config(workdir)
  problem = problem_lib.load(workdir)
  rows = parallel.on_writer(lambda: log_value.read(problem, logged, clip))
  runtime = commands.build(cfg, problem, workdir)
  state = runtime.restore_best(workdir)
  scorer, step = runtime.scorer(state), int(state.step)

  def conclude() -> str:
    assert rows is not None
    target = None
    if plan is not None:
      explorer = explorer_lib.Explorer(recommender.load(workdir), workdir)
      target = log_target.PolicyTarget(explorer, plan)
    found = log_value.evaluate(problem, scorer, rows, logged, clip, target)
    found = {'step': step} | found
    text = pages.off_policy_text(found)
    print(text, flush=True)
    path = os.path.join(workdir, log_value.FILE)
    files.write_json(path, found)
    files.write_text(os.path.splitext(path)[0] + '.md', text)
    commands.say(f'Written to {path}')
    if os.path.exists(os.path.join(workdir, 'results.json')):
      commands.say(pages.say_where(lambda: pages.write_again(workdir, cfg)))
    return json.dumps(found)

  return json.loads(parallel.from_writer(parallel.on_writer(conclude)))
