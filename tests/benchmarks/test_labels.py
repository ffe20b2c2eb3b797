# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of label losses measures, and what it makes of it."""

from benchmarks import labels


def test_a_step_with_many_negatives_is_held_against_one_with_few(monkeypatch):
  built = []

  def build(cfg, problem):
    assert problem == 'the problem of somewhere'
    built.append(cfg)
    return cfg

  monkeypatch.setattr(
      labels.task, 'load_problem', lambda where: f'the problem of {where}'
  )
  monkeypatch.setattr(labels.runtime_lib, 'build', build)
  monkeypatch.setattr(
      labels.jax_dropoutnet, 'JaxDropoutNet', lambda runtime: runtime
  )
  monkeypatch.setattr(
      labels.turns, 'measure', lambda *unused: [[4096.0] * 3, [5120.0] * 3]
  )
  monkeypatch.setattr(labels, 'softmax_rate', lambda *unused: (30.0, 60.0))
  step, softmax = labels.run('somewhere').rows
  assert [cfg.objective.num_negatives for cfg in built] == [256, 4]
  assert all(cfg.objective.terms() == ('softmax',) for cfg in built)
  assert all(cfg.train.batch_size == 4096 for cfg in built)
  assert (step.ours, step.other) == (1000.0, 800.0)
  assert step.ratio == 0.8 and step.met
  assert softmax.ratio == 0.5 and softmax.met is False


def test_rates_of_the_softmax_and_of_the_product():
  softmax, product = labels.softmax_rate(64, 8)
  assert 0 < softmax < 1e4 and 0 < product < 1e5
