# SPDX-License-Identifier: Apache-2.0
"""Settings of training that cannot be."""

import pytest

from dropoutnet_jax import config
from dropoutnet_jax import errors


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'optimizer': 'adm'}, "optimizer is 'adm'; it must be one of adam, "),
        ({'schedule': 'step'}, "schedule is 'step'; it must be one of const"),
        (
            {'embedding_optimizer': 'adgrad'},
            "embedding_optimizer is 'adgrad'; it must be one of adam, adamw, "
            'adagrad, lamb, lion, rmsprop, sgd, lazy_adam, row_adagrad. Did '
            "you mean 'adagrad'?",
        ),
        (
            {'optimizer': 'lazy_adam'},
            "optimizer is 'lazy_adam'; it must be one of adam, adamw, adagrad,",
        ),
        (
            {'embedding_optimizer': 'lazy_adam', 'ema': 0.9},
            'ema is 0.9; it must be 0.0 where train.embedding_optimizer is '
            "'lazy_adam': it would be of all rows of a table, in every step.",
        ),
        (
            {'embedding_optimizer': 'row_adagrad', 'accumulate': 2},
            'accumulate is 2; it must be 1 where train.embedding_optimizer is '
            "'row_adagrad': it would be of all rows of a table,",
        ),
        (
            {'nesterov': True, 'optimizer': 'adagrad'}
            | {'embedding_optimizer': 'row_adagrad'},
            'nesterov is True; it must be False with adagrad and row_adagrad;',
        ),
        (
            {'embedding_learning_rate': -0.1},
            'embedding_learning_rate is -0.1; it must be at least 0.',
        ),
        ({'learning_rate': 0.0}, 'learning_rate is 0.0; it must be positive.'),
        ({'momentum': 1.0}, 'momentum is 1.0; it must be below 1.'),
        ({'momentum': -0.1}, 'momentum is -0.1; it must be a probability in'),
        ({'beta2': 1.0}, 'beta2 is 1.0; it must be below 1.'),
        ({'epsilon': -1e-8}, 'epsilon is -1e-08; it must be at least 0.'),
        ({'accumulator': -1.0}, 'accumulator is -1.0; it must be at least 0.'),
        (
            {'weight_decay': 0.1},
            'weight_decay is 0.1; it must be 0 with adam; adamw, lamb, lion '
            'have it.',
        ),
        (
            {
                'weight_decay': 0.1,
                'optimizer': 'sgd',
                'embedding_optimizer': 'adagrad',
            },
            'weight_decay is 0.1; it must be 0 with adagrad and sgd; adamw,',
        ),
        (
            {'weight_decay': 0.1, 'embedding_optimizer': 'lion'},
            'weight_decay is 0.1; it must be 0 with adam and lion; adamw, '
            'lamb, lion have it, which tables of embeddings are spared.',
        ),
        (
            {'nesterov': True, 'optimizer': 'lion'},
            'nesterov is True; it must be False with lion; adam, adamw, lazy_',
        ),
        (
            {'nesterov': True, 'momentum': 0.0},
            'momentum is 0.0; it must be positive where train.nesterov is on.',
        ),
        ({'accumulate': 0}, 'accumulate is 0; it must be at least 1.'),
        (
            {'accumulate': 3, 'num_steps': 40},
            'num_steps is 40; it must be a multiple of train.accumulate, 3: ',
        ),
        ({'end_share': 1.5}, 'end_share is 1.5; it must be a probability in'),
        ({'power': 0.0}, 'power is 0.0; it must be positive.'),
        (
            {'schedule': 'piecewise'},
            'decay_every is 0; it must be at least 1.',
        ),
        (
            {'schedule': 'exponential'},
            'decay_every is 0; it must be at least 1.',
        ),
        (
            {'boundaries': (3,)},
            "boundaries is (3,); it must be empty where train.schedule is 'cos",
        ),
        (
            {'multiples': (3.0,)},
            "multiples is (3.0,); it must be empty where train.schedule is 'c",
        ),
        (
            {'schedule': 'piecewise', 'boundaries': (3,), 'decay_every': 2},
            'decay_every is 2; it must be 0 where train.boundaries say when',
        ),
        (
            {'schedule': 'piecewise', 'boundaries': (3, 3)},
            'boundaries is (3, 3); it must be ascending, the first above ',
        ),
        (
            {'schedule': 'piecewise', 'boundaries': (3,), 'warmup_steps': 3},
            'it must be ascending, the first above train.warmup_steps, 3.',
        ),
        (
            {
                'schedule': 'piecewise',
                'boundaries': (3, 4),
                'multiples': (0.5,),
            },
            'multiples is (0.5,); it must be empty or one for each of the 2 ',
        ),
        (
            {
                'schedule': 'piecewise',
                'boundaries': (3,),
                'multiples': (-0.5,),
            },
            'multiples is -0.5; it must be at least 0.',
        ),
        (
            {'schedule': 'piecewise', 'decay_every': 1, 'multiples': (0.5,)},
            'multiples is (0.5,); it must be empty or one for each of the 0 ',
        ),
        (
            {'freeze': ('item/(.*',)},
            "freeze is 'item/(.*'; it must be a regular expression (missing )",
        ),
        (
            {'freeze': ('',)},
            "freeze is ''; it must be a regular expression (it is empty).",
        ),
        (
            {'embedding_parameters': '*'},
            "embedding_parameters is '*'; it must be a regular expression (no",
        ),
    ],
)
def test_settings_that_cannot_be(settings, message):
  made = config.TrainConfig(**settings)
  with pytest.raises(errors.UserError) as caught:
    made.validate()
  assert str(caught.value).startswith(f'config.train.{message.split()[0]}') or (
      message.startswith('it must be')
  )
  assert message in str(caught.value)
